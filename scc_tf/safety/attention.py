"""Where a classifier looks: Grad-CAM heat maps, through the tf-keras-vis library.

Shapes: ``N`` images of ``H x W`` pixels and ``C`` colours, ``K`` classes; the last convolution returns ``D``
channels of ``h x w``. Heat is a fraction in [0, 1], normalised per image.
"""

import functools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from scc_tf.graph import copy_model
from scc_tf.safety.uncertainty import class_probabilities

__all__ = [
    "CamBatch",
    "attention_score",
    "cam_batches",
    "check_images",
    "check_model",
    "last_convolution",
    "resize_maps",
]

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
_LARGEST_PIXEL = 100  # far beyond any scaling to a mean of 0 or a range of 1


class CamBatch(NamedTuple):
    """What one forward pass over ``n`` images tells."""

    maps: np.ndarray  # float32 (n, h, w), Grad-CAM heat in [0, 1] at the resolution of the layer
    probabilities: np.ndarray  # float32 (n, K), rows sum to 1
    features: np.ndarray  # float32 (n, h, w, D), what the layer returned


def last_convolution(model: keras.Model) -> keras.layers.Layer:
    """The last convolution layer of a model: the one that Grad-CAM reads.

    Args:
        model: a functional or `Sequential` model.

    Returns:
        The last `Conv2D`, `DepthwiseConv2D` or `SeparableConv2D` (or subclass of one) in ``model.layers``.

    Raises:
        ValueError: if the model has none at its top level. A nested model is not searched: its inner tensors
            are not part of the outer graph.
    """
    for layer in reversed(model.layers):
        if isinstance(layer, _CONVOLUTIONS):
            return layer
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    hint = f" Layers inside nested models are not searched: {nested}; build a flat model." if nested else ""
    raise ValueError(
        "Expected a model with a 2-D convolution layer (Conv2D, DepthwiseConv2D or SeparableConv2D) at its top "
        f"level. Received: {model.name!r} with layers {[type(layer).__name__ for layer in model.layers]}.{hint}"
    )


def attention_score(maps: np.ndarray) -> np.ndarray:
    """How much of an image the model attends to: the sum of its heat map.

    Args:
        maps: float ``(N, h, w)``, see `cam_batches`.

    Returns:
        float ``(N,)``, in [0, h * w]; only scores at one resolution compare.

    Source: the founding safety set, arXiv 2505.00350.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3:
        raise ValueError(f"Expected maps (N, h, w). Received: shape={maps.shape}")
    return maps.sum(axis=(1, 2))


def resize_maps(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Heat maps brought to ``size = (H, W)`` (bilinear) and scaled to [0, 1] again.

    Args:
        maps: float ``(N, h, w)``.
        size: height and width, pixels.

    Returns:
        float32 ``(N, H, W)``.
    """
    larger = tf.image.resize(np.asarray(maps, np.float32)[..., None], tuple(size), method="bilinear")
    return _normalise(larger.numpy()[..., 0])


def cam_batches(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> Iterator[CamBatch]:
    """Grad-CAM heat maps, probabilities and features of all images, one forward pass, a batch at a time.

    ``heat = relu(sum_d weight_d * A_d)``, where ``A_d`` is channel ``d`` of what the last convolution returns and
    ``weight_d`` the mean over ``h x w`` of the gradient of the predicted class's logit with respect to ``A_d``;
    then scaled to [0, 1] per image: the hottest pixel is 1, the coldest 0, and a map that is the same everywhere
    (nothing speaks for the class) is 0. The model runs in inference mode (no dropout, the moving statistics of
    batch normalisation) and is not changed. A model that ends in a softmax is explained by its logits too; one
    that returns probabilities in another way is explained by these.

    Args:
        model: a model that `check_model` accepts; not checked here.
        images: float ``(N, H, W, C)`` that `check_images` accepts; not checked here.
        batch_size: images per step.

    Yields:
        One `CamBatch` per ``batch_size`` images, in order.

    Raises:
        ValueError: if the model has no convolution, the batch size is not positive, or an answer of the model is
            not finite.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", arXiv 1610.02391, eq. 1 and 2.
    """
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1. Received: batch_size={batch_size}")
    step = _gradcam_step(model, last_convolution(model).name)
    for start in range(0, len(images), batch_size):
        maps, outputs, features = step(tf.constant(images[start : start + batch_size], tf.float32))
        outputs = outputs.numpy()
        if not np.isfinite(outputs).all():
            raise ValueError(f"Expected finite answers from {model.name!r}. Received: NaN or infinity.")
        yield CamBatch(_normalise(maps.numpy()), class_probabilities(outputs), features.numpy())


def check_model(model: keras.Model) -> keras.Model:
    """The model itself, if it is a built functional image classifier; a ValueError if not."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not isinstance(model, keras.Model) or not inputs or not outputs:
        raise ValueError(
            "Expected a built functional or Sequential keras.Model. A subclassed model has no layer graph to "
            f"read; an unbuilt one needs keras.layers.Input first. Received: {model!r}"
        )
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    if len(shapes) != 2 or len(shapes[0]) != 4 or len(shapes[1]) != 2 or (shapes[1][1] or 0) < 2:
        raise ValueError(
            "Expected a classifier of one input (N, H, W, C) and one output (N, K), K >= 2. "
            f"Received: inputs {shapes[: len(inputs)]}, outputs {shapes[len(inputs) :]}"
        )
    return model


def check_images(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The images as a float array that fits the model; a ValueError if they do not."""
    images = np.asarray(images)
    if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            "Expected float images (N, H, W, C), scaled as the model expects. "
            f"Received: shape={images.shape}, dtype={images.dtype}"
        )
    expected = tuple(model.inputs[0].shape)[1:]
    if any(want not in (None, got) for want, got in zip(expected, images.shape[1:], strict=True)):
        raise ValueError(f"Expected images of shape {expected}. Received: shape={images.shape}")
    if len(images) == 0:
        raise ValueError(f"Expected at least one image. Received: shape={images.shape}")
    if not np.isfinite(images).all():
        raise ValueError("Expected finite images. Received: NaN or infinity.")
    if np.abs(images).max() > _LARGEST_PIXEL:
        raise ValueError(
            f"Expected images scaled for training, to [0, 1] for example, and within ±{_LARGEST_PIXEL} in any case "
            f"(0..255 must be divided by 255). Received: values from {images.min():g} to {images.max():g}"
        )
    return images


def _normalise(maps):
    """Scale each map to [0, 1]. The library's own divides by the range + 1e-7, which flattens faint maps."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)


def _with_logits(model):
    """A plain functional view of the model, or a clone; where it ends in a softmax, it returns the logits.

    A Sequential model is cloned: where layers were added one by one, as they are when it is loaded from a file, each
    was called several times, and its `output` is that of the first call, which the model does not read.

    tf-keras-vis has ReplaceToLinear for the softmax, but it reads `model.output_names`, which Keras 3 dropped.
    """
    view = keras.Model(model.inputs[0], model.outputs[0])
    has_softmax = getattr(view.outputs[0]._keras_history.operation, "activation", None) is keras.activations.softmax
    if has_softmax or isinstance(model, keras.Sequential):
        view = copy_model(view)
    head = view.outputs[0]._keras_history.operation
    if isinstance(head, keras.layers.Softmax):
        return keras.Model(view.inputs[0], head.input)
    if has_softmax:
        head.activation = keras.activations.linear
    return view


@functools.cache
def _graph_gradcam():
    """The library's Gradcam, with its NumPy weighting replaced by TensorFlow's so that it can be compiled.

    Eager, its tape runs backwards through the whole network, four times the work of the forward pass; in a
    compiled graph everything below the convolution is pruned away. Imported late: `import scc_tf` stays cheap.
    """
    with warnings.catch_warnings():  # it imports from scipy.ndimage.interpolation, a deprecated name
        warnings.simplefilter("ignore", DeprecationWarning)
        from tf_keras_vis.gradcam import Gradcam

    class GraphGradcam(Gradcam):
        def _calculate_cam(self, grads, penultimate_output, gradient_modifier, activation_modifier):
            weights = tf.reduce_mean(grads, axis=(1, 2), keepdims=True)
            return tf.nn.relu(tf.reduce_sum(weights * penultimate_output, axis=-1))

    return GraphGradcam


def _gradcam_step(model, layer_name):
    """A compiled function: images (n, H, W, C) -> maps (n, h, w), outputs (n, K), features (n, h, w, D)."""
    logits = _with_logits(model)
    features = logits.get_layer(layer_name).output
    # The features are a second output whose score is 0, so that the library hands them out with the answers.
    gradcam = _graph_gradcam()(keras.Model(logits.inputs[0], [logits.outputs[0], features]))

    @tf.function(input_signature=[tf.TensorSpec([None, *logits.inputs[0].shape[1:]], tf.float32)])
    def step(images):
        seen = []

        def predicted_class(outputs):
            seen.append(tf.cast(outputs, tf.float32))
            return tf.reduce_sum(outputs * tf.one_hot(tf.argmax(outputs, 1), outputs.shape[1], dtype=outputs.dtype), 1)

        def nothing(features):
            seen.append(tf.cast(features, tf.float32))
            return tf.zeros(tf.shape(features)[0], features.dtype)

        maps = gradcam(
            [predicted_class, nothing],
            images,
            penultimate_layer=layer_name,
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
        )
        return tf.cast(maps, tf.float32), *seen

    return step
