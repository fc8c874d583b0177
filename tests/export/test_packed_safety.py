import logging

import numpy as np
import pytest
import toy_problem as toy

import scc_tf
from scc_tf.safety import Contract


def model(reference):
    compressed = scc_tf.self_compress(toy.dense_net(), 4)
    chosen = toy.safety_set()
    chosen.labels = np.asarray(compressed(chosen.images)).argmax(1)
    compressed.contract = reference and Contract(chosen, reference, 0.0)
    compressed.get_layer("head").bias.assign([9.0, 0.0, 0.0] if reference == 0.99 else [0.0, 0.0, 0.0])
    return compressed


@pytest.mark.parametrize(("reference", "safe"), [(None, None), (1.0, True), (0.99, False)])
def test_the_report_says_whether_the_file_keeps_the_contract(reference, safe, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        report = scc_tf.save_packed(model(reference), tmp_path / "mine.scc")
    assert report.safe is safe
    assert ("mine.scc has a safety accuracy" in caplog.text) == (safe is False)
    assert ("BROKEN" in str(report)) == (safe is False) and ("kept" in str(report)) == (safe is True)
    if safe:
        assert (report.safety_accuracy, report.safety_drop) == (1.0, 0.0)
