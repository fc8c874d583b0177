import os
import subprocess
import sys

import numpy as np
import pytest

from scc_tf import tfmot
from scc_tf.pruning import block_mask, magnitude_mask, n_of_m_mask
from scc_tf.tfmot import mask_of, sparsity_at

ORDERS = {
    "ours first": "from scc_tf import tfmot; tfmot.ConstantSparsity; import tensorflow as tf",
    "tensorflow first": "import tensorflow as tf; from scc_tf import tfmot; tfmot.ConstantSparsity",
    "keras first": "import keras; from scc_tf import tfmot; tfmot.PolynomialDecay; import tensorflow as tf",
    "only a mask": "from scc_tf import tfmot; tfmot.mask_of([1.0, 2.0], 0.5); import tensorflow as tf",
}


@pytest.mark.slow
@pytest.mark.parametrize(("order", "variable"), [*((order, None) for order in ORDERS), ("keras first", "0")])
def test_the_legacy_variable_and_tf_keras_are_as_before(order, variable):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment |= {} if variable is None else {"TF_USE_LEGACY_KERAS": variable}
    code = f"{ORDERS[order]}; import os; print(os.environ.get('TF_USE_LEGACY_KERAS'), tf.keras.__version__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [str(variable), "3"]


def test_a_schedule_says_when_and_how_much():
    schedule = tfmot.PolynomialDecay(0.0, 0.8, begin_step=10, end_step=20, power=1, frequency=5)
    assert [sparsity_at(schedule, step)[0] for step in (9, 10, 12, 15, 20, 25)] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
    assert sparsity_at(schedule, 15)[1] == pytest.approx(0.4)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        tfmot.Nothing  # noqa: B018


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.875, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_our_masks_are_those_of_tf_mot(sparsity, ties):
    weights = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    weights = np.round(2 * weights) / 2 if ties else weights
    np.testing.assert_array_equal(mask_of(weights, sparsity), magnitude_mask(weights, sparsity))


@pytest.mark.parametrize(("pooling", "ours"), [("AVG", "average"), ("MAX", "max")])
def test_our_block_masks_are_those_of_tf_mot(pooling, ours):
    weights = np.random.default_rng(1).normal(size=(8, 12)).astype(np.float32)
    theirs = mask_of(weights, 0.5, block=(2, 3), pooling=pooling)
    np.testing.assert_array_equal(theirs, block_mask(weights, 0.5, (2, 3), ours))


def test_our_n_of_m_masks_are_those_of_tf_mot():
    weights = np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32)
    np.testing.assert_array_equal(mask_of(weights, 0.5, zeros_of=(2, 4)), n_of_m_mask(weights, 2, 4, axis=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"sparsity": 1.5}, "sparsity to be a number in"), ({"sparsity": 0.5, "block": (2, 1)}, "Expected a matrix")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mask_of(np.ones((2, 2, 2), np.float32), **arguments)


def test_one_row_of_blocks_which_tf_mot_itself_cannot_mask():
    weights = np.random.default_rng(3).normal(size=(2, 12)).astype(np.float32)
    mask = mask_of(weights, 0.5, block=(2, 3)).reshape(2, 4, 3)
    assert (mask.any(axis=(0, 2)) == mask.all(axis=(0, 2))).all()
    assert mask.sum() == 12
