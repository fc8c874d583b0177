import collections

import keras
import pytest
from fuzzing import case, corpus, outcome

import scc_tf
from scc_tf.export.packed import _unpack


@pytest.fixture(scope="module")
def files():
    return corpus()


def test_the_corpus_is_sound(files):
    assert {outcome(data) for data in files} == {"loaded"}
    assert any(isinstance(_unpack(data, 10_000), scc_tf.SelfCompressingModel) for data in files)


@pytest.mark.slow
def test_a_tampered_file_is_refused_in_one_line_or_read(files):
    outcomes = collections.Counter(outcome(case(files, 1, number)) for number in range(300))
    keras.utils.clear_session(free_memory=False)
    assert {kind.partition(" after ")[0] for kind in outcomes} == {"loaded", "refused"}, outcomes
    assert not any("MemoryError" in kind for kind in outcomes)


def test_a_case_can_be_made_again(files):
    again = corpus()
    assert [case(files, 0, number) for number in range(20)] == [case(again, 0, number) for number in range(20)]
