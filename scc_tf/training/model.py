"""The training step: task loss + gamma * Q + lambda * safety loss, under one GradientTape."""

import functools
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from keras import ops

from scc_tf.arguments import check_choice, check_count, check_number, received
from scc_tf.graph import Flow, running_state
from scc_tf.keras_private import loss_tracker
from scc_tf.layers import SelfCompressing, self_compressing_layers
from scc_tf.safety import check_safety_set
from scc_tf.size import SIZE_FORMS, UNITS, RateTerm, SizeTerm, bits_table
from scc_tf.surgery.plan import make_plan
from scc_tf.training.callback_order import in_order
from scc_tf.training.cuttable import CuttableModel
from scc_tf.training.format_optimizer import checked_optimizer, default_format_optimizer
from scc_tf.training.safety_term import SafetyTerm

__all__ = ["SIZE_MODELS", "SelfCompressingModel"]

SIZE_MODELS = ("bits", "entropy")
COUNT_EVERY = 10  # training steps between two looks of the size model at the codes
_CONTRACT = "safety_contract.json"  # among the assets of a .keras file


@keras.saving.register_keras_serializable(package="scc_tf")
class SelfCompressingModel(CuttableModel):
    """Functional Keras model whose ``fit`` trains weights, bit depths and exponents together.

    `scc_tf.self_compress` makes one from a plain model. ``compile`` takes what Keras takes and the arguments below;
    ``fit``, ``evaluate``, ``predict``, saving and callbacks are those of Keras.

    Attributes:
        gamma: float32 variable, weight of the size term; callbacks may assign it during training.
        lambda_safety: float, weight of the safety loss.
        format_optimizer: optimizer of the bit depths and exponents; ``optimizer`` has all other variables, so its
            weight decay does not touch the formats.
        starting_weights: number of kernel weights when the model was first compiled: the ``N`` of Q.
        cuts: what `remove_dead_channels` has removed, in order, as plain JSON. Weights of a state with other cuts can
            be set and loaded: the model then has the channels of that state.
        in_fit: whether ``fit`` is running, which calls ``on_fit_end`` of the callbacks when all else is done.
        reference: `scc_tf.training.reference.Reference`, the network that was handed to `self_compress`; None in a
            model that was read from a file.
        contract: `scc_tf.safety.Contract` that the last ``fit`` was held to, or None. No file keeps it; the model that
            is loaded from a ``.keras`` file warns of that.
    """

    conversion_report = None
    reference = None
    contract = None
    starting_weights = None
    size_model = "bits"
    in_fit = False

    def compile(  # noqa: PLR0913 (Keras's own compile has as many)
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
        gamma: float = 0.01,
        lambda_safety: float = 0.0,
        safety_set: Any = None,
        safety_batch_size: int = 64,
        format_optimizer: Any = None,
        size_model: str = "bits",
        size_form: str = "coupled",
        unit: str = "bits",
        **kwargs,
    ) -> None:
        """Configure training. Invalid arguments raise; the model is unchanged.

        Args:
            optimizer: optimizer of the weights, as in Keras.
            loss: task loss, as in Keras. It is the safety loss as well.
            gamma: weight of Q, not negative. With ``unit="bits"`` one bit per weight costs ``gamma``.
            lambda_safety: weight of the loss on a random batch of the safety set, not negative.
            safety_set: `scc_tf.SafetySet`, or anything with ``images`` ``(S, ...)``, as the model is trained on, and
                integer ``labels`` ``(S,)``; needed if ``lambda_safety > 0``. The labels take the form that those of
                ``fit`` have, one-hot or not.
            safety_batch_size: safety examples per step, at least 1.
            format_optimizer: optimizer of bit depths and exponents; default `default_format_optimizer`.
            size_model: what Q counts. ``"bits"``: bit depths, which are learned (`scc_tf.SizeTerm`).
                ``"entropy"``: what the codes will take in a file (`scc_tf.RateTerm`). Weights and exponents are
                learned; the exponents of a kernel move together; every bit depth follows, as the smallest that clips
                no code of its channel. Frozen layers stay as they are.
            size_form: for ``"bits"``, ``"coupled"`` or ``"sum"``, see `scc_tf.SizeTerm`.
            unit: ``"bits"`` or ``"bytes"`` per weight.
            **kwargs: everything else that ``keras.Model.compile`` takes.

        Raises:
            ValueError: on a negative or non-finite ``gamma`` or ``lambda_safety``, an optimizer with ``use_ema``, an
                unknown ``size_model``, ``size_form`` or ``unit``; with a safety loss, on a model with several inputs,
                outputs or losses, and on a safety set that is missing, empty, inconsistent or unlike the model's
                inputs.
        """
        gamma, lambda_safety = check_number("gamma", gamma, 0), check_number("lambda_safety", lambda_safety, 0)
        check_count("safety_batch_size", safety_batch_size)
        if safety_set is not None:
            check_safety_set(safety_set)
        check_choice("size_model", size_model, SIZE_MODELS)
        check_choice("size_form", size_form, SIZE_FORMS)
        check_choice("unit", unit, UNITS)
        optimizer = checked_optimizer("optimizer", optimizer)
        if format_optimizer is None:
            format_optimizer = default_format_optimizer()
        format_optimizer = checked_optimizer("format_optimizer", format_optimizer)
        if isinstance(optimizer, getattr(keras.optimizers, "MultiOptimizer", ())):  # Keras 3.12 has none
            raise ValueError(
                "Expected optimizer to be one that takes all weights: Keras gives it the bit depths as well when fit "
                f"ends, which a MultiOptimizer does not take. {received('optimizer', optimizer)}"
            )
        SizeTerm(self, size_form, unit)  # refuses a model without self-compressing layers
        safety_term = SafetyTerm(self, loss, safety_set, safety_batch_size) if lambda_safety else None
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        if size_model == "entropy":
            self.fit_bit_depths()
        self.size_model, self._size_form, self._unit = size_model, size_form, unit
        self.exchanged()
        self.gamma = tf.Variable(gamma, dtype=tf.float32, trainable=False, name="gamma")
        self.lambda_safety, self._safety_term, self.format_optimizer = lambda_safety, safety_term, format_optimizer
        self._safety_settings = functools.partial(  # not a dictionary, in which Keras would look for things to save
            dict, safety_set=safety_set, safety_batch_size=safety_batch_size
        )
        if self.optimizer is not None:
            for chosen, variables in zip((self.optimizer, format_optimizer), self._split_variables(), strict=True):
                if not chosen.built:  # twice, a LossScaleOptimizer would have all its variables twice
                    chosen.build(variables)

    def exchanged(self):
        """Measure the size of the graph that the model has now, from here on."""
        if not self.compiled:
            return
        if self.size_model == "entropy":
            self.size_term = RateTerm(self, self._unit, self.starting_weights)
        else:
            self.size_term = SizeTerm(self, self._size_form, self._unit, self.starting_weights)
        self.starting_weights = self.size_term.starting_weights
        self._nominal = SizeTerm(self, "sum", "bits", self.starting_weights)

    def _split_variables(self):
        """The trainable variables: ``(weights, formats)``. Bit depths that follow from the codes are neither."""
        formats = [f for layer in self_compressing_layers(self) for f in layer.formats]
        bit_depths, exponents = ({id(getattr(f, name)) for f in formats} for name in ("bit_depth", "exponent"))
        learned = exponents if self.size_model == "entropy" else bit_depths | exponents
        variables = self.trainable_variables
        weights = [v for v in variables if id(v) not in bit_depths | exponents]
        return weights, [v for v in variables if id(v) in learned]

    def fit_bit_depths(self):
        """Set every bit depth that is not 0, save in frozen layers, to the smallest that clips nothing, 24 at most."""
        for layer in self_compressing_layers(self):
            for fmt in layer.formats if layer.trainable else ():
                kernel = ops.cast(getattr(layer, fmt.name), "float32")
                codes = ops.round(ops.abs(kernel) * ops.power(2.0, -fmt.spread(fmt.exponent)))
                # not even the half step beyond the largest code: clipping would keep the gradient from the weight
                largest = ops.reshape(ops.max(codes, axis=fmt.other_axes), (fmt.channels, 1))
                bits = 1.0 + ops.sum(ops.cast(largest + 2.0 > 2.0 ** np.arange(23), "float32"), axis=1)
                fmt.bit_depth.assign(ops.where(fmt.bit_depth > 0, bits, 0.0))

    def summary(self, line_length=None, positions=None, print_fn=None, **settings):
        """Keras's summary, and a table of bits and bytes: bit depths times weights, which training reduces.

        `scc_tf.size_report` measures the file. The arguments are those of Keras.
        """
        super().summary(line_length, positions, print_fn, **settings)
        (print_fn or sys.stdout.write)(f"{bits_table(self)}\n")

    def has_bits(self, layer, kernel_name="kernel"):
        """Bool array ``(C,)``: which channels have bits; with ``size_model="entropy"``, a code that is not 0."""
        fmt = layer.format_of(kernel_name)
        if self.size_model == "entropy":
            return ops.convert_to_numpy(layer.codes(kernel_name)).any(axis=fmt.other_axes).ravel()
        return ops.convert_to_numpy(fmt.bit_depth) > 0

    def _forward(self, x):
        """Predictions for ``x``, and the labels and predictions of a random batch of the safety set."""
        if self._safety_term is None:
            return self(x, training=True), None
        # one pass and not two, so that BatchNormalization sees one batch in which the safety examples are few
        both, labels = self._safety_term.join(x, self.optimizer.iterations)
        predictions = self(both, training=True)
        count = self._safety_term.batch_size
        return predictions[:-count], (labels, predictions[-count:])

    def fit(self, *args, **kwargs):
        """Keras's ``fit``, with the callbacks of `scc_tf.callbacks` in the order that they need, however listed.

        Some callbacks set weights in ``on_train_end``. So callbacks that have ``on_fit_end()`` are called once more
        after all of them, the last first: what has to hold for the weights that ``fit`` leaves can be seen to then. An
        exception skips it.
        """
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        callbacks = bound.arguments["callbacks"] = in_order(bound.arguments.get("callbacks"), self)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        self.in_fit = True
        try:
            history = super().fit(*bound.args, **bound.kwargs)
            for callback in reversed(keras.tree.flatten(callbacks)):
                if hasattr(callback, "on_fit_end"):
                    callback.on_fit_end()
        finally:
            self.in_fit = False
        return history

    def train_step(self, data):
        """One step; adds ``bits_per_weight`` (nominal, or coded with the entropy model) and ``safety_loss`` to logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        extra_logs = {}
        with tf.GradientTape() as tape:
            predictions, safety = self._forward(x)
            loss = self.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=True)
            size = self.size_term()
            loss = tf.cast(loss, tf.float32) + self.gamma * size
            if safety is not None:
                extra_logs["safety_loss"] = self._safety_term.loss(y, *safety)
                loss += self.lambda_safety * extra_logs["safety_loss"]
            scale = self.optimizer.scale_loss(tf.ones(()))  # read it here: the optimizer changes it when applied
            scaled_loss = loss * scale
        weights, formats = self._split_variables()
        gradients = tape.gradient(scaled_loss, [*weights, *formats])
        self.optimizer.apply(gradients[: len(weights)], weights)
        self._update_formats(gradients[len(weights) :], formats, scale)
        loss_tracker(self).update_state(loss, sample_weight=ops.shape(keras.tree.flatten(predictions)[0])[0])
        coded = self.size_model == "entropy"
        extra_logs["bits_per_weight"] = size / UNITS[self.size_term.unit] if coded else self._nominal()
        return {**self.compute_metrics(x, y, predictions, sample_weight=sample_weight), **extra_logs}

    def _update_formats(self, gradients, formats, scale):
        # The weights' optimizer may scale the loss (mixed precision): undo that here, and skip what overflowed.
        gradients = [None if g is None else g / scale for g in gradients]
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = [None if g is None else tf.where(tf.math.is_finite(g), g, 0.0) for g in gradients]
        if self.size_model == "entropy":  # one direction for all exponents of a kernel
            gradients = [None if g is None else tf.fill(tf.shape(g), tf.reduce_sum(g)) for g in gradients]
        if formats:
            self.format_optimizer.apply(gradients, formats)
        if self.size_model == "entropy":
            self.fit_bit_depths()
            tf.cond(self.optimizer.iterations % COUNT_EVERY == 0, self.size_term.update, lambda: None)

    def remove_dead_channels(self, kept=None, min_share=0.0):
        """Remove channels that have no bits left (see `has_bits`) from this very model, also in the middle of ``fit``.

        `scc_tf.remove_dead_channels` returns a smaller model; here ``fit``, optimizers, metrics and callbacks go on
        with the same one, see `CuttableModel`. The outputs are the same, with BatchNormalization as in training: a
        constant channel leaves it as its offset. Other weights that are zero only because they round to it stay, since
        they may grow again.

        Args:
            kept: ``{(layer, kernel name): bool array (C,)}``, True for channels to keep though they have no bits now.
            min_share: change nothing unless this share of the kernels' weights would go, in [0, 1].

        Returns:
            `scc_tf.SurgeryReport`; None if nothing was changed.
        """
        min_share = check_number("min_share", min_share, 0, 1)
        alive = {}
        for key, layout in Flow(self).layouts.items():
            if isinstance(layout.layer, SelfCompressing):
                stays = np.asarray((kept or {}).get((layout.layer, layout.name), False))
                alive[key] = self.has_bits(layout.layer, layout.name) | stays
        plan = make_plan(self, alive, training=True)
        return self.cut(plan) if plan.removed and plan.share_removed >= min_share else None

    def cut(self, plan):
        """Carry out a plan on this very model, whose size still counts from the network that it was."""
        self.starting_weights = self.starting_weights or SizeTerm(self).starting_weights
        return super().cut(plan)

    def descend_from(self, other, cut):
        """Take over what a model that was cut keeps of itself."""
        super().descend_from(other, cut)
        self.starting_weights = other.starting_weights or SizeTerm(other).starting_weights
        self.reference, self.contract = other.reference, other.contract

    def compile_like(self, other):
        """Compile as another self-compressing model is, its safety set included."""
        config = keras.saving.deserialize_keras_object(other.get_compile_config())
        self.compile(**config, **other._safety_settings())

    def save_assets(self, dir_path):
        """Note what the contract is, for `load_assets`; its safety set is not stored."""
        if self.contract is not None:
            noted = {"is": str(self.contract), "threshold": self.contract.threshold}
            noted["reference_accuracy"] = self.contract.reference_accuracy
            Path(dir_path, _CONTRACT).write_text(json.dumps(noted))

    def load_assets(self, dir_path):
        """Warn where the stored model had a contract."""
        if (path := Path(dir_path, _CONTRACT)).is_file():
            noted = json.loads(path.read_text())
            logging.warning(
                "%s was saved with a safety contract: %s. Its safety set was not stored: to hold the model to it, "
                "assign model.contract = scc_tf.safety.Contract(safety_set, reference_accuracy=%s, threshold=%s).",
                self.name,
                *(noted[name] for name in ("is", "reference_accuracy", "threshold")),
            )

    def save_own_variables(self, store):
        """Add gamma, what the size term has counted, and the random state of the layers to what Keras stores."""
        super().save_own_variables(store)
        for name, variable in self._own_variables().items():
            store[name] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        """Take over channels, gamma, counts and random state of the stored model; older files lack some."""
        super().load_own_variables(store)
        for name, variable in self._own_variables().items():
            if name in store and store[name].shape == variable.shape:  # that of a stateful layer has its batch
                variable.assign(store[name])

    def _own_variables(self):
        counts = self.size_term.variables if self.size_model == "entropy" else ()
        own = {f"counts_{i}": variable for i, variable in enumerate(counts)}
        own.update((f"running_{i}", variable) for i, variable in enumerate(running_state(self)))
        return {"gamma": self.gamma, **own} if self.compiled else {}

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
        """Keras's configuration with the size term and the format optimizer. The safety set is not stored."""
        config = super().get_compile_config()
        if config is not None and self.compiled:
            config.update(
                gamma=float(self.gamma.numpy()),
                lambda_safety=self.lambda_safety,
                size_model=self.size_model,
                size_form=self._size_form,
                unit=self._unit,
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
