"""The training step: task loss + gamma * Q + lambda * safety loss, under one GradientTape."""

import inspect
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from keras import ops

from scc_tf.layers import SelfCompressing
from scc_tf.size import SizeTerm

__all__ = ["SelfCompressingModel", "default_format_optimizer", "self_compressing_layers"]


LARGEST_INPUT = 1e4  # no network is trained on inputs beyond that


def self_compressing_layers(model):
    """The self-compressing layers of a model, nested ones included, each once."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, SelfCompressing)]


def default_format_optimizer(learning_rate=0.5):
    """Adam for bit depths and exponents as in the paper: learning rate 0.5, epsilon 1e-3.

    The gradients of gamma * Q are far below that epsilon, so Adam acts like momentum SGD there and a larger gamma
    moves the bits faster. With the usual epsilon every bit would move by one learning rate per step whatever
    gamma is.

    Args:
        learning_rate: float or Keras schedule.

    Source: Cséfalvay & Imber 2023, section 4 (arXiv 2301.13142).
    """
    return keras.optimizers.Adam(learning_rate, epsilon=1e-3, name="format_adam")


def _averages_weights(optimizer):
    parts = (optimizer, getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ()))
    return any(getattr(part, "use_ema", False) for part in parts)


@keras.saving.register_keras_serializable(package="scc_tf")
class SelfCompressingModel(keras.Model):
    """Functional Keras model whose ``fit`` trains weights, bit depths and exponents together.

    `scc_tf.self_compress` makes one from a plain model. ``compile`` takes what Keras takes and the arguments below;
    ``fit``, ``evaluate``, ``predict``, saving and callbacks are those of Keras.

    Attributes:
        gamma: float32 variable, weight of the size term; callbacks may assign it during training.
        lambda_safety: float, weight of the safety loss.
        format_optimizer: optimizer of the bit depths and exponents; ``optimizer`` has all other variables, so its
            weight decay does not touch the formats.
        starting_weights: number of kernel weights when the model was first compiled: the ``N`` of Q.
        in_fit: whether ``fit`` is running, which calls ``on_fit_end`` of the callbacks when all else is done.
    """

    conversion_report = None
    starting_weights = None
    in_fit = False

    def compile(  # noqa: PLR0913 (Keras's own compile has as many)
        self,
        optimizer="adam",
        loss=None,
        *,
        gamma=0.01,
        lambda_safety=0.0,
        safety_set=None,
        safety_batch_size=64,
        format_optimizer=None,
        size_form="coupled",
        unit="bits",
        **kwargs,
    ):
        """Configure training. What is refused leaves the model as it was.

        Args:
            optimizer: optimizer of the weights, as in Keras.
            loss: task loss, as in Keras. It is the safety loss as well.
            gamma: weight of Q, not negative. With ``unit="bits"`` one bit per weight costs ``gamma``.
            lambda_safety: weight of the loss on a random batch of the safety set, not negative.
            safety_set: `scc_tf.SafetySet`, or anything with ``images`` ``(S, ...)``, floats in the range that the
                model is trained on, and integer ``labels`` ``(S,)``; needed if ``lambda_safety > 0``. The labels
                take the form that those of ``fit`` have, one-hot or not.
            safety_batch_size: safety examples per step, at least 1.
            format_optimizer: optimizer of bit depths and exponents; default `default_format_optimizer`.
            size_form: ``"coupled"`` or ``"sum"``, see `scc_tf.size.SizeTerm`.
            unit: ``"bits"`` or ``"bytes"`` per weight.
            **kwargs: everything else that ``keras.Model.compile`` takes.

        Raises:
            ValueError: on a negative or non-finite ``gamma`` or ``lambda_safety``, an optimizer with ``use_ema``, an
                unknown ``size_form`` or ``unit``; with a safety loss, on a model with several inputs, outputs or
                losses, and on a safety set that is missing, empty, inconsistent or unlike the model's inputs.
        """
        for name, value in (("gamma", gamma), ("lambda_safety", lambda_safety)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"Expected {name} to be finite and not negative. Received: {name}={value}")
        optimizer = keras.optimizers.get(optimizer)
        format_optimizer = keras.optimizers.get(
            default_format_optimizer() if format_optimizer is None else format_optimizer
        )
        for name, chosen in (("optimizer", optimizer), ("format_optimizer", format_optimizer)):
            if _averages_weights(chosen):  # at the end of fit Keras gives one optimizer all variables to average
                raise ValueError(
                    f"Expected {name} without use_ema: it has only some of the variables. Received: "
                    f"{name}={chosen.name} with use_ema=True"
                )
        size_term = SizeTerm(self, size_form, unit, self.starting_weights)
        safety_data = self._checked_safety_data(loss, safety_set, safety_batch_size) if lambda_safety else None
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        self.size_term = size_term
        if self.starting_weights is None:
            self.starting_weights = size_term.starting_weights
        self._nominal = SizeTerm(self, "sum", "bits", self.starting_weights)
        self.gamma = tf.Variable(gamma, dtype=tf.float32, trainable=False, name="gamma")
        self.lambda_safety = float(lambda_safety)
        self._safety_batch_size = int(safety_batch_size)
        self._safety_data = safety_data
        self.format_optimizer = format_optimizer
        if self.optimizer is not None:
            weights, formats = self._split_variables()
            self.optimizer.build(weights)
            self.format_optimizer.build(formats)

    def _checked_safety_data(self, loss, safety_set, batch_size):
        """The images and labels of the safety set as tensors."""
        if safety_set is None or len(safety_set.labels) == 0:
            raise ValueError(
                "Expected a safety set with at least one example, since lambda_safety > 0. "
                f"Received: safety_set={safety_set}"
            )
        images, labels = np.asarray(safety_set.images), np.asarray(safety_set.labels)
        if images.shape[:1] != (labels.size,):
            raise ValueError(
                "Expected one label per image of the safety set. "
                f"Received: images={images.shape}, labels={labels.shape}"
            )
        if batch_size < 1:
            raise ValueError(f"Expected a safety batch of at least one. Received: safety_batch_size={batch_size}")
        if len(self.inputs) != 1 or len(self.outputs) != 1 or not isinstance(loss, str | Callable):
            raise ValueError(
                "Expected a model with one input, one output and one loss for a safety loss. "
                f"Received: {len(self.inputs)} inputs, {len(self.outputs)} outputs, loss={loss}"
            )
        self._check_safety_examples(images, labels)
        return tf.constant(images, self.inputs[0].dtype), tf.constant(labels.reshape(-1), tf.int64)

    def _check_safety_examples(self, images, labels):
        """Refuse examples that the model can take but was not meant for."""
        shape, dtype, classes = self.inputs[0].shape, self.inputs[0].dtype, self.outputs[0].shape[-1]
        fits = all(want in (None, have) for want, have in zip(shape[1:], images.shape[1:], strict=False))
        if len(shape) != images.ndim or not fits:
            raise ValueError(
                f"Expected safety images of the model's input shape {shape}. Received: images={images.shape}"
            )
        if images.dtype.kind in "iub" and keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "Expected safety images that are floats in the range the model is trained on. "
                f"Received: images of {images.dtype}"
            )
        largest = np.abs(images).max()
        if not largest <= LARGEST_INPUT:  # NaN is not
            raise ValueError(
                f"Expected safety images that are finite and within [-{LARGEST_INPUT:g}, {LARGEST_INPUT:g}], in the "
                f"range the model is trained on. Received: images with a value of magnitude {largest}"
            )
        classes = max(classes, 2)  # one output tells two classes apart
        if not np.isin(labels, np.arange(classes)).all():
            raise ValueError(
                f"Expected integer safety labels from 0 to {classes - 1}. "
                f"Received: labels from {labels.min()} to {labels.max()}"
            )

    def _split_variables(self):
        """The trainable variables: ``(weights, formats)``."""
        formats = [f for layer in self_compressing_layers(self) for f in layer.formats]
        learned = {id(v) for f in formats for v in (f.bit_depth, f.exponent)}
        variables = self.trainable_variables
        return [v for v in variables if id(v) not in learned], [v for v in variables if id(v) in learned]

    def _forward(self, x):
        """Predictions for ``x`` and, in the same pass, for a random batch of the safety set.

        One pass and not two, so that BatchNormalization sees one batch in which the safety examples are few.
        """
        if self._safety_data is None:
            return self(x, training=True), None
        images, labels = self._safety_data
        step = tf.cast(self.optimizer.iterations, tf.int32)
        count = self._safety_batch_size  # the draw depends on the step alone: an interrupted run goes on with it
        chosen = tf.random.stateless_uniform((count,), (0, step), maxval=tf.shape(labels)[0], dtype=tf.int32)
        both = tf.concat([tf.cast(x, images.dtype), tf.gather(images, chosen)], axis=0)
        predictions = self(both, training=True)
        return predictions[:-count], (tf.gather(labels, chosen), predictions[-count:])

    def _safety_loss(self, y, safety):
        labels, predictions = safety
        classes = predictions.shape[-1]
        if len(y.shape) == 2:
            labels = tf.one_hot(labels, classes) if y.shape[-1] == classes != 1 else labels[:, None]
        loss = keras.losses.get(self.loss)(labels, tf.cast(predictions, tf.float32))
        return tf.cast(tf.reduce_mean(loss), tf.float32)

    def fit(self, *args, **kwargs):
        """Keras's ``fit``, which then calls ``on_fit_end()`` of the callbacks that have it, the last in the list first.

        Some callbacks set weights in ``on_train_end``. What has to hold for the weights that ``fit`` leaves can be
        seen to only after all of them; those further down the list act first, so those that they depend on, which
        stand before them, see what they did. An exception skips ``on_fit_end``.
        """
        callbacks = inspect.signature(super().fit).bind(*args, **kwargs).arguments.get("callbacks")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        self.in_fit = True
        try:
            history = super().fit(*args, **kwargs)
            for callback in reversed(keras.tree.flatten(callbacks)):
                if hasattr(callback, "on_fit_end"):
                    callback.on_fit_end()
        finally:
            self.in_fit = False
        return history

    def train_step(self, data):
        """One step; adds ``bits_per_weight`` (nominal) and ``safety_loss`` to the logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        extra_logs = {}
        with tf.GradientTape() as tape:
            predictions, safety = self._forward(x)
            loss = self.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=True)
            loss = tf.cast(loss, tf.float32) + self.gamma * self.size_term()
            if safety is not None:
                extra_logs["safety_loss"] = self._safety_loss(y, safety)
                loss += self.lambda_safety * extra_logs["safety_loss"]
            scale = self.optimizer.scale_loss(tf.ones(()))  # read it here: the optimizer changes it when applied
            scaled_loss = loss * scale
        weights, formats = self._split_variables()
        gradients = tape.gradient(scaled_loss, [*weights, *formats])
        self.optimizer.apply(gradients[: len(weights)], weights)
        self._update_formats(gradients[len(weights) :], formats, scale)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(keras.tree.flatten(predictions)[0])[0])
        extra_logs["bits_per_weight"] = self._nominal()
        return {**self.compute_metrics(x, y, predictions, sample_weight=sample_weight), **extra_logs}

    def _update_formats(self, gradients, formats, scale):
        # The weights' optimizer may scale the loss (mixed precision): undo that here, and skip what overflowed.
        gradients = [None if g is None else g / scale for g in gradients]
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = [None if g is None else tf.where(tf.math.is_finite(g), g, 0.0) for g in gradients]
        if formats:
            self.format_optimizer.apply(gradients, formats)

    def get_config(self):
        """The functional configuration with ``starting_weights``."""
        return {**super().get_config(), "starting_weights": self.starting_weights}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuild the model; see `get_config`."""
        config = dict(config)
        starting_weights = config.pop("starting_weights", None)
        model = super().from_config(config, custom_objects=custom_objects)
        model.starting_weights = starting_weights
        return model

    def get_compile_config(self):
        """Keras's configuration with the size term and the format optimizer. The safety set is not stored.

        ``lambda_safety`` is there only so that `compile_from_config` can tell that there was a safety loss.
        """
        config = super().get_compile_config()
        if config is not None and self.compiled:
            config.update(
                gamma=float(self.gamma.numpy()),
                lambda_safety=self.lambda_safety,
                size_form=self.size_term.form,
                unit=self.size_term.unit,
                format_optimizer=keras.saving.serialize_keras_object(self.format_optimizer),
            )
        return config

    def compile_from_config(self, config):
        """Compile as saved; a safety loss needs a new ``compile`` with its safety set, and a warning says so."""
        config = dict(config)
        lambda_safety = config.pop("lambda_safety", 0.0)
        if lambda_safety > 0:
            logging.warning(
                "%s was saved with lambda_safety=%g. Its safety set was not: the safety loss is off until compile is "
                "called with lambda_safety and safety_set.",
                self.name,
                lambda_safety,
            )
        self.compile(**keras.saving.deserialize_keras_object(config))
