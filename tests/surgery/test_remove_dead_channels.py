"""`remove_dead_channels`: the outputs stay, whatever died."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers
from lab import models

import scc_tf

mask = zoo.mask


def kill(model, share=1 / 3, seed=0):
    """Force a share of the channels of every kernel but the last dead: no bits in a twin, zeros in a stock layer."""
    rng = np.random.default_rng(seed)
    count = 0
    for layout in list(zoo.kernels(model).values())[:-1]:
        dead = rng.random(layout.channels) < share
        if hasattr(layout.layer, "format_of"):
            bit_depth = layout.layer.format_of(layout.name).bit_depth
            bit_depth.assign(np.where(dead, 0, bit_depth))
        else:
            kernel = getattr(layout.layer, layout.name)
            kernel.assign(np.where(layout.spread(dead), 0, kernel))
        count += dead.sum()
    return count


def trained(model):
    """Weights as after training: no default is left, but activations neither grow nor vanish."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.7, 1.3, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "offsets"), [("mnist_cnn", True), ("lenet_5", True), ("lenet_5", False), ("resnet20", False)]
)
def test_models_of_the_library(name, offsets):
    model = trained(getattr(models, name)(seed=0))
    model = scc_tf.self_compress(model if offsets else zoo.without_offsets(model), initial_bit_depth=6)
    dead = kill(model)
    _, report = zoo.remove_dead(model)
    kept = sum(count for count, _ in report.kept_dead.values())
    assert report.removed >= dead - kept
    if name != "resnet20":
        assert report.kept_dead == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depthwise", "concatenated", "unet"])
def test_networks_of_the_zoo(name):
    model = scc_tf.self_compress(zoo.without_offsets(zoo.vary(zoo.NETWORKS[name]())), initial_bit_depth=6)
    kill(model)
    _, report = zoo.remove_dead(model)
    assert report.removed > 0


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True], ids=["stock", "twins"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("MobileNetV2", {"alpha": 0.35}), ("EfficientNetB0", {})],  # DenseNet121: experiments/export_networks.py
    ids=["MobileNetV2", "EfficientNetB0"],
)
def test_applications_of_keras(name, arguments, compressed):
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None, **arguments)
    model = zoo.without_offsets(trained(model))
    model = scc_tf.self_compress(model, initial_bit_depth=8) if compressed else model
    kill(model)
    smaller, report = zoo.remove_dead(model, tolerance=1e-4)
    assert report.removed > 500
    assert smaller.count_params() < 0.9 * model.count_params()


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_the_quantized_kernel_counts(rounding):
    plain = zoo.vary(keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(2, name="head")]))
    model = scc_tf.self_compress(plain, initial_bit_depth=6, rounding=rounding)
    a = model.get_layer("a")
    a.bit_depth.assign([0.0, 6.0, 6.0, 6.0])
    kernel = np.asarray(a.kernel).copy()
    kernel[:, 1] = 1e-6  # rounds to zero
    kernel[:, 2] = -1e-6 if rounding == "floor" else 0.5  # does not: floor takes it to -1
    a.kernel.assign(kernel)
    _, report = zoo.remove_dead(model)
    assert report.channels["a"] == (4, 2)


@pytest.mark.slow
def test_inputs_that_nobody_reads_go_with_their_producers():
    model = zoo.vary(zoo.NETWORKS["chain"]())
    kernel = np.asarray(model.get_layer("b").kernel).copy()
    kernel[:, :, [0, 3]] = 0
    model.get_layer("b").kernel.assign(kernel)
    _, report = zoo.remove_dead(model)
    assert zoo.left(report) == {"a": 4, "b": 5, "c": 7, "d": 3}
    _, report = zoo.remove(model, {})  # zero is not for ever: training goes on
    assert zoo.left(report) == {"a": 6, "b": 5, "c": 7, "d": 3}


@pytest.mark.slow
def test_the_whole_chain_in_front_of_what_nobody_reads_goes():
    model = zoo.vary(zoo.NETWORKS["depthwise"]())
    kernel = np.asarray(model.get_layer("b").kernel).copy()
    kernel[:, :, [2, 3]] = 0  # both channels that the depthwise kernel makes of channel 1
    model.get_layer("b").kernel.assign(kernel)
    _, report = zoo.remove_dead(model)
    assert (zoo.left(report)["a"], zoo.left(report)["dw"]) == (3, 6)


@pytest.mark.slow
def test_nothing_is_dead():
    model = zoo.vary(zoo.NETWORKS["residual"]())
    _, report = zoo.remove_dead(model)
    assert (report.removed, report.kept_dead) == (0, {})


@pytest.mark.slow
def test_everything_is_dead():
    model = scc_tf.self_compress(zoo.vary(zoo.NETWORKS["chain"]()))
    kill(model, share=1)
    smaller, report = zoo.remove_dead(model)
    assert zoo.left(report) == {"a": 1, "b": 1, "c": 1, "d": 3}
    assert np.ptp(zoo.outputs(smaller, zoo.examples(model)).reshape(-1, 3), axis=0).max() == 0


@pytest.mark.slow
def test_a_residual_channel_goes_when_all_its_addends_are_dead():
    model = zoo.without_offsets(zoo.vary(zoo.NETWORKS["residual"]()))
    for name in ("stem", "b", "c", "d", "e"):
        kernel = np.asarray(model.get_layer(name).kernel).copy()
        kernel[..., [1, 4] if name != "c" else [1]] = 0
        model.get_layer(name).kernel.assign(kernel)
    _, report = zoo.remove_dead(model)
    assert zoo.left(report) == {"stem": 5, "a": 6, "b": 5, "c": 5, "d": 5, "e": 5, "head": 2}
    assert report.kept_dead["stem"] == (1, "tied to channels that vary")
