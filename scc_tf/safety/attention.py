"""Where a classifier looks: Grad-CAM heat maps; and what it answers, in the same pass.

Shapes: ``N`` images of ``H x W`` pixels and ``C`` colours, ``K`` classes; the last convolution returns ``D``
channels of ``h x w``. Heat is a fraction in [0, 1], normalised per image.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from scc_tf.arguments import check_count
from scc_tf.classifier import border
from scc_tf.graph.walk import is_graph
from scc_tf.inference import arranged, batch_for, batches, packed, tensors
from scc_tf.keras_private import all_layers, producing_call
from scc_tf.safety.uncertainty import class_probabilities

__all__ = ["CamBatch", "attention_score", "cam_batches", "last_convolution", "resize_maps"]

BATCH_SIZE = 256
_TINY = 1e-7  # what a float32 may be away from 1
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
_SQUASHING = (keras.activations.softmax, keras.activations.sigmoid, keras.activations.hard_sigmoid)


class CamBatch(NamedTuple):
    """What one forward pass over ``n`` examples tells."""

    maps: np.ndarray | None  # float32 (n, h, w), Grad-CAM heat in [0, 1] at the resolution of the layer
    probabilities: np.ndarray  # float32 (n, K), rows sum to 1; of one unit (n, 2)
    features: np.ndarray  # float32 (n, h, w, D), what the layer returned; else what the last layer reads


def last_convolution(model: keras.Model) -> keras.layers.Layer | None:
    """The last layer of a model that returns maps of a convolution: the one that Grad-CAM reads.

    Args:
        model: a built functional or `Sequential` model.

    Returns:
        The last `Conv2D`, `DepthwiseConv2D` or `SeparableConv2D` (or subclass of one) in ``model.layers``, or nested
        model that has one and returns maps; None if there is none. Inner tensors of a nested model are not part of the
        outer graph.
    """
    return _last_maps(model)[0]


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


def cam_batches(model: keras.Model, images, batch_size: int | None = None) -> Iterator[CamBatch]:
    """Grad-CAM heat maps, probabilities and features of all images, one forward pass, a batch at a time.

    ``heat = relu(sum_d weight_d * A_d)``, where ``A_d`` is channel ``d`` of what the last convolution returns and
    ``weight_d`` the mean over ``h x w`` of the gradient of the predicted class's logit with respect to ``A_d``;
    then scaled to [0, 1] per image: the hottest pixel is 1, the coldest 0, and a map that is the same everywhere
    (nothing speaks for the class) is 0. The model runs in inference mode (no dropout, the moving statistics of
    batch normalisation) and is not changed. A model that ends in a softmax or sigmoid is explained by its logits too;
    one that returns probabilities in another way is explained by these. A model without a 2-D convolution has no maps.

    Args:
        model: a classifier that `scc_tf.classifier.classes_of` accepts; not checked here.
        images: array ``(N, …)``, or the structure of arrays that the model takes; not checked here.
        batch_size: images per step; None: as many as memory allows, 256 at most.

    Yields:
        One `CamBatch` per ``batch_size`` images, in order.

    Raises:
        ValueError: if the batch size is not positive, or an answer of the model is not finite.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", arXiv 1610.02391, eq. 1 and 2.
    """
    if batch_size is not None:
        check_count("batch_size", batch_size)
    arrays = arranged(model, images)
    step, size = _gradcam_step(model), batch_for(model, batch_size, BATCH_SIZE, arrays)
    for batch in batches(arrays, size):
        count = len(batch[0])
        if model.inputs[0].shape[0] is not None and count < size:  # a fixed batch is filled up
            batch = [np.resize(array, (size, *array.shape[1:])) for array in batch]
        logits, features, *maps = (tensor.numpy()[:count] for tensor in step(tensors(model, batch)))
        if not np.isfinite(logits).all():
            raise ValueError(f"Expected finite answers from {model.name!r}. Received: NaN or infinity.")
        yield CamBatch(_normalise(maps[0]) if maps else None, class_probabilities(logits), features)


def _normalise(maps):
    """Scale each map to [0, 1]. The library's own divides by the range + 1e-7, which flattens faint maps."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)


def _calls(model):
    """``(operation, its output)`` of all that the outputs of a model are made of.

    Not ``layer.output``: a Sequential whose layers were added one by one has called each several times.
    """
    waiting, seen = [*model.outputs], set()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            call = producing_call(tensor)
            yield call.operation, tensor
            waiting.extend(call.inputs)


def _last_maps(model):
    """The layer that Grad-CAM reads and its output, or None twice."""
    places = {id(layer): place for place, layer in enumerate(model.layers)}
    found = [
        (places[id(layer)], layer, tensor)
        for layer, tensor in _calls(model)
        if id(layer) in places and len(tensor.shape) == 4 and _has_convolution(layer)
    ]
    return max(found, key=lambda each: each[0], default=(0, None, None))[1:]


def _has_convolution(layer):
    inner = all_layers(layer) if is_graph(layer) else [layer]
    return any(isinstance(each, _CONVOLUTIONS) for each in inner)


def _ends(model):
    """``(answers, what the last layer reads, layer to strip)``: how the answers of a model come about.

    For the logits, the activation of the last layer has to be taken off, if it is one of probabilities: by leaving it
    out, where it is a layer of its own, or by stripping the layer. None where there is nothing to strip.
    """
    tensor, left_out = model.outputs[0], False
    while True:
        operation, inputs, *_ = producing_call(tensor)
        activation = getattr(operation, "activation", None)
        alone = type(operation).__name__ in ("Softmax", "Sigmoid") or isinstance(operation, keras.layers.Activation)
        squashes = activation in _SQUASHING or (alone and activation is None)
        casts = activation is keras.activations.linear  # to float32, behind layers of half precision
        if not alone or len(inputs) != 1 or not (casts or (squashes and not left_out)):
            break
        tensor, left_out = inputs[0], left_out or squashes
    reads = inputs[0] if len(inputs) == 1 and inputs[0].dtype != "string" else tensor
    return tensor, reads, operation if squashes and not left_out else None, left_out


@contextlib.contextmanager
def _without_activation(layer):
    if layer is None:
        yield
        return
    activation = layer.activation
    layer.activation = keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation


def _gradcam_step(model):
    """A compiled function: batch -> logits (n, K or 2), features and, with a convolution, maps (n, h, w)."""
    answers, reads, squashing, left_out = _ends(model)
    _, maps = _last_maps(model)
    is_probability = squashing is None and not left_out and answers.shape[1] == 1 and border(model) > 0
    structure = packed(model, model.inputs)
    view = keras.Model(structure, [answers, reads if maps is None else maps])

    @tf.function(reduce_retracing=True)
    def step(batch):
        with _without_activation(squashing):
            outputs, features = view(packed(model, batch), training=False)
        logits = tf.cast(outputs, tf.float32)
        if is_probability:
            logits = tf.math.log(tf.maximum(logits, _TINY)) - tf.math.log(tf.maximum(1 - logits, _TINY))
        if logits.shape[1] == 1:  # the logit of the one class over that of the other
            logits = tf.concat([-logits / 2, logits / 2], axis=1)
        if maps is None:
            return logits, tf.cast(features, tf.float32)
        score = tf.reduce_sum(logits * tf.one_hot(tf.argmax(logits, 1), logits.shape[1]))
        # not a tape, which would run back through the whole network: everything below the features is left out
        (gradients,) = tf.gradients(score, features, unconnected_gradients="zero")
        gradients, features = tf.cast(gradients, tf.float32), tf.cast(features, tf.float32)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return logits, features, tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))

    return step
