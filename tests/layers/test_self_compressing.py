import keras
import layer_checks
import numpy as np
import pytest
from keras import ops
from layer_cases import CASES, ONE_OF_EACH, Case

from scc_tf import layers

each_case = pytest.mark.parametrize("case", CASES, ids=str)
one_of_each = pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.twin.__name__)


def test_every_twin_is_tested():
    assert {case.twin for case in CASES} == {entry.self_compressing for entry in layers.entries()}
    for entry in layers.entries():
        assert issubclass(entry.self_compressing, layers.SelfCompressing)
        assert issubclass(entry.self_compressing, entry.stock)


@pytest.mark.slow
@each_case
def test_battery(case):
    layer_checks.battery(case)


@one_of_each
def test_other_ways_to_compress_are_refused(case):
    layer_checks.check_other_ways_to_compress_are_refused(case, "call scc_tf.to_plain(model) first")


@one_of_each
def test_saving(case, tmp_path):
    layer_checks.check_a_saved_model_is_the_same_bit_for_bit(case, tmp_path)


@one_of_each
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, policy):
    layer_checks.check_mixed_precision_has_the_same_kernel(case, policy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(layers.Conv1D, {"filters": 2, "kernel_size": 3, "padding": "causal", "groups": 2}, (2, 7)),
        Case(layers.DepthwiseConv2D, {"kernel_size": 2, "depth_multiplier": 2}, (3, 4, 5)),
        Case(layers.SeparableConv2D, {"filters": 4, "kernel_size": 2}, (3, 4, 5)),
    ],
    ids=lambda case: case.twin.__name__,
)
def test_channels_first_where_tensorflow_can_do_it_on_a_cpu(case):
    case.arguments["data_format"] = "channels_first"
    layer_checks.check_it_multiplies_by_the_quantized_kernel(case)


def model_of_every_twin():
    bits = {"initial_bit_depth": 2}
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, **bits),
            layers.DepthwiseConv2D(2, **bits),
            layers.SeparableConv2D(3, 2, **bits),
            layers.Conv2DTranspose(2, 2, **bits),
            keras.layers.Reshape((9, 2)),
            layers.Conv1D(2, 2, **bits),
            layers.EinsumDense("...x,xy->...y", 3, **bits),
            keras.layers.Flatten(),
            layers.Dense(2, **bits),
        ]
    )
    assert {type(layer) for layer in model.layers} >= {entry.self_compressing for entry in layers.entries()}
    return model


def check_one_step(model, **how):
    before = [np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables]
    model.compile("sgd", "mse", **how)
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    assert np.isfinite(model.train_on_batch(x, np.ones((4, 2), "float32")))
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(variable).all()
        assert np.any(ops.convert_to_numpy(variable) != old), variable.path


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{"run_eagerly": True}, {"jit_compile": False}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
    ids=str,
)
def test_one_step_of_training_moves_every_variable(how):
    check_one_step(model_of_every_twin(), **how)


def test_one_step_where_keras_chooses_to_compile():
    """It chooses XLA, which the model of every twin has been through: a small one will do."""
    check_one_step(keras.Sequential([keras.Input((3,)), layers.Dense(2, initial_bit_depth=2)]), jit_compile="auto")


def test_bit_depths_never_become_negative():
    layer = layers.Dense(3, initial_bit_depth=0.5)
    layer.build((None, 2))
    keras.optimizers.SGD(1.0).apply([np.full(3, 9.0, "float32")], [layer.bit_depth])
    assert ops.convert_to_numpy(layer.bit_depth).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bits", [0, -1, 25, float("nan")])
def test_a_bad_initial_bit_depth_is_refused(bits):
    with pytest.raises(ValueError, match=r"\(0, 24\].*Received: initial_bit_depth"):
        layers.Dense(3, initial_bit_depth=bits)


def test_an_unknown_rounding_is_refused():
    with pytest.raises(ValueError, match="Received: rounding='up'"):
        layers.Conv2D(3, 3, rounding="up")


@pytest.mark.parametrize("exponent", [-25, 9, -2.5, float("nan"), "fine"])
def test_a_bad_bias_exponent_is_refused(exponent):
    with pytest.raises(ValueError, match=r"from -24 to 8\..*Received: bias_exponent="):
        layers.Dense(3, bias_exponent=exponent)


def test_a_bias_exponent_of_numpy_is_saved_as_an_integer():
    config = layers.Dense(3, bias_exponent=np.int64(-6)).get_config()
    assert config["bias_exponent"] == -6
    assert type(config["bias_exponent"]) is int


def test_formats_are_named_by_their_kernel():
    layer = layers.SeparableConv2D(4, 2)
    with pytest.raises(ValueError, match="Expected a built layer"):
        layer.format_of("depthwise_kernel")
    layer.build((None, 4, 4, 3))
    assert layer.format_of("depthwise_kernel").channels == 3
    with pytest.raises(ValueError, match="Received: kernel_name='kernel'"):
        layer.format_of()


def test_a_pure_float16_layer_keeps_its_format_in_float32():
    layer = layers.Dense(3, dtype="float16")
    assert layer(np.ones((2, 4), "float16")).dtype == "float16"
    assert layer.bit_depth.dtype == layer.exponent.dtype == "float32"


def test_a_layer_that_is_built_inside_another_finds_its_range():
    class Wrapper(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(3, initial_bit_depth=3)

        def call(self, x):
            return self.inner(x)

    keras.Model(inputs := keras.Input((4,)), Wrapper()(inputs))
    wrapper = Wrapper()
    model = keras.Sequential([keras.Input((4,)), wrapper])
    assert np.isfinite(model(np.ones((1, 4), "float32"))).all()
    assert (np.abs(wrapper.inner.codes()).max(axis=0) >= 3).all()
