"""Where a classifier looks: Grad-CAM heat maps; and what it answers, in the same pass.

Shapes: ``n`` images of a batch, ``K`` classes; the last convolution returns ``D`` channels of ``h x w``.
"""

import contextlib
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from scc_tf.arguments import check_count
from scc_tf.classifier import border
from scc_tf.graph import is_graph
from scc_tf.inference import arranged, batch_for, batches, compiled, packed, run_batch
from scc_tf.keras_private import all_layers, producing_call
from scc_tf.safety.criteria import class_probabilities

__all__ = ["CamBatch", "cam_batches", "last_convolution", "resize_maps"]

BATCH_SIZE = 256
_TINY = 1e-7  # what a float32 may be away from 1
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_SQUASHING = (keras.activations.softmax, keras.activations.sigmoid, keras.activations.hard_sigmoid)


class CamBatch(NamedTuple):
    """What one forward pass over ``n`` examples tells."""

    maps: np.ndarray | None  # float32 (n, h, w), Grad-CAM heat in [0, 1] at the resolution of the layer
    probabilities: np.ndarray  # float32 (n, K), rows sum to 1; of one unit (n, 2)
    features: np.ndarray  # float32 (n, h, w, D), what the layer returned; else what the last layer reads


def last_convolution(model):
    """The last layer of a model that returns maps of a convolution, or nested model that does; None without one."""
    return _last_maps(model)[0]


def resize_maps(maps, size):
    """Heat maps ``(N, h, w)`` brought to ``size = (H, W)`` (bilinear) and scaled to [0, 1] again."""
    larger = tf.image.resize(np.asarray(maps, np.float32)[..., None], tuple(size), method="bilinear")
    return _normalise(larger.numpy()[..., 0])


def cam_batches(model, images, batch_size=None):
    """Grad-CAM heat maps, probabilities and features of all images, one forward pass, a batch at a time.

    ``heat = relu(sum_d weight_d * A_d)``, where ``A_d`` is channel ``d`` of what the last convolution returns and
    ``weight_d`` the mean over ``h x w`` of the gradient of the predicted class's logit with respect to ``A_d``;
    then scaled to [0, 1] per image: the hottest pixel is 1, the coldest 0, and a map that is the same everywhere
    (nothing speaks for the class) is 0. The model runs in inference mode and is not changed. A model that ends in a
    softmax or sigmoid is explained by its logits; one that returns probabilities in another way by these. A model
    without a 2-D convolution has no maps.

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
    arrays, ends = arranged(model, images), _Ends(model)
    step = compiled(model, "gradcam", lambda: _gradcam_step(model, ends), None, ends.is_probability)
    size = batch_for(model, batch_size, BATCH_SIZE, arrays)
    for batch in batches(arrays, size):
        logits, features, *maps = run_batch(model, step, batch, size)
        if not np.isfinite(logits).all():
            raise ValueError(f"Expected finite answers from {model.name!r}. Received: NaN or infinity.")
        yield CamBatch(_normalise(maps[0]) if maps else None, class_probabilities(logits), features)


def _normalise(maps):
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)


def _last_maps(model):
    """The layer that Grad-CAM reads and its output, or None twice.

    Among all that the outputs are made of, not by ``layer.output``: a Sequential whose layers were added one by one has
    called each several times.
    """
    places = {id(layer): place for place, layer in enumerate(model.layers)}
    waiting, seen, found = [*model.outputs], set(), []
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        layer, inputs, *_ = producing_call(tensor)
        waiting.extend(inputs)
        if id(layer) in places and len(tensor.shape) == 4:
            inner = all_layers(layer) if is_graph(layer) else [layer]
            if any(isinstance(each, _CONVOLUTIONS) for each in inner):
                found.append((places[id(layer)], layer, tensor))
    return max(found, key=lambda each: each[0], default=(0, None, None))[1:]


class _Ends:
    """How the answers of a model come about.

    For the logits, the activation of the last layer has to be taken off, if it is one of probabilities: by leaving it
    out, where it is a layer of its own, or by stripping the layer.

    Attributes:
        answers: tensor to read the answers from.
        reads: tensor that the last layer reads.
        strip: layer whose activation is to be taken off, or None.
        is_probability: whether ``answers`` are the probability of one class.
    """

    def __init__(self, model):
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
        self.answers = tensor
        self.reads = inputs[0] if len(inputs) == 1 and inputs[0].dtype != "string" else tensor
        self.strip = operation if squashes and not left_out else None
        self.is_probability = self.strip is None and not left_out and tensor.shape[1] == 1 and border(model) > 0

    @contextlib.contextmanager
    def stripped(self):
        """Without the activation of the last layer."""
        layer, activation = self.strip, getattr(self.strip, "activation", None)
        if layer is not None:
            layer.activation = keras.activations.linear
        try:
            yield
        finally:
            if layer is not None:
                layer.activation = activation


def _gradcam_step(model, ends):
    """A function to compile: batch -> logits (n, K or 2), features and, with a convolution, maps (n, h, w)."""
    _, maps = _last_maps(model)
    view = keras.Model(packed(model, model.inputs), [ends.answers, ends.reads if maps is None else maps])

    def step(batch):
        with ends.stripped():
            outputs, features = view(packed(model, batch), training=False)
        logits = tf.cast(outputs, tf.float32)
        if ends.is_probability:
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
