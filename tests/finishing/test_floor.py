import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.export.packed import packed_bytes
from scc_tf.finishing.floor import check_target, without_kernels


def model(frozen=False):
    keras.utils.set_random_seed(0)
    names = ("leftover", "small", "head")
    layers = [keras.layers.Dense(n, "relu", name=name) for n, name in zip((40, 20, 5), names, strict=True)]
    net = keras.Sequential([keras.Input((10,)), *layers])
    compressed = scc_tf.self_compress(net, 4, exclude=["leftover"])
    compressed.get_layer("small").trainable = not frozen
    return compressed


@pytest.mark.parametrize(("frozen", "stays"), [(False, ["leftover"]), (True, ["small", "leftover"])])
def test_what_is_not_compressed_stays_the_largest_first(frozen, stays):
    compressed = model(frozen)
    before = compressed.get_weights()
    empty, sizes = without_kernels(compressed)
    assert list(sizes) == stays and sizes["leftover"] == 4 * 10 * 40
    np.testing.assert_array_equal(empty.get_layer("leftover").kernel, compressed.get_layer("leftover").kernel)
    assert not np.asarray(empty.get_layer("head").codes()).any()
    for one, other in zip(compressed.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_target_below_that_is_refused_in_one_line_and_names_the_layers():
    compressed = model()
    floor = len(packed_bytes(without_kernels(compressed)[0]))
    assert 1200 < floor < len(packed_bytes(compressed))
    check_target(compressed, floor)
    with pytest.raises(ValueError, match=r"leftover \(1,600 B\).*target_bytes=") as caught:
        check_target(compressed, floor - 1)
    assert "\n" not in str(caught.value) and f"{floor:,}" in str(caught.value)
    with pytest.raises(ValueError, match="leftover"):
        scc_tf.finish_to_bytes(compressed, np.zeros((4, 10)), floor // 2)
