"""Prune the smallest weights while the network trains, on a schedule of TF-MOT."""

from collections.abc import Mapping
from typing import Any

from keras import ops

from scc_tf.arguments import check_choice, check_count, check_number, received
from scc_tf.callbacks.fit_callback import FitCallback
from scc_tf.keras_private import all_layers
from scc_tf.layers import Masked, is_frozen
from scc_tf.pruning import global_masks, quality_mask
from scc_tf.tfmot import mask_of, sparsity_at

__all__ = ["SCOPES", "MagnitudePruning"]

SCOPES = ("layer", "global", "quality")
POOLINGS = ("AVG", "MAX")


class MagnitudePruning(FitCallback):
    """Sets the masks of a model (`scc_tf.add_masks`) to keep the largest weights.

    Acts after the steps at which the schedule says so. Masks are computed anew from the kernels as they are then: what
    was pruned is zero and stays pruned, unless the schedule's sparsity falls. Between these steps, and after ``fit``,
    the masks hold under momentum and weight decay. They are weights of the model.

    Adds to ``logs``: ``sparsity``, the fraction of the masked kernels' weights that are pruned.

    Args:
        schedule: `scc_tf.tfmot.ConstantSparsity`, `scc_tf.tfmot.PolynomialDecay` or another TF-MOT schedule; or, by
            ``{layer name: schedule}``, one for each of some layers.
        scope: ``"layer"``: each kernel gets the schedule's sparsity, by TF-MOT's own mask; ``"global"``: one threshold
            for all kernels; ``"quality"``: each kernel loses what is below ``quality`` times the standard deviation of
            its weights, at the schedule's steps, whatever its sparsity.
        quality: factor of the standard deviation.
        block: ``(height, width)`` of blocks that stand and fall together, in Dense kernels; others are pruned entry by
            entry. With ``scope="layer"``.
        pooling: ``"AVG"`` or ``"MAX"``, the magnitude of a block.
        zeros_of: ``(m, n)``: m zeros among n consecutive inputs, whatever the schedule's sparsity. With
            ``scope="layer"``.
        include_frozen: whether kernels of layers with ``trainable=False`` are pruned, too. Otherwise they stay as they
            are, and do not count for ``sparsity``.

    Attributes:
        history: one dictionary per pruning: ``step`` and ``sparsity``.

    Raises:
        ValueError: if an argument is out of range or does not go with ``scope``; from ``fit``, if the model has no
            masks or the schedules name a layer that has none.

    Source: Zhu & Gupta 2017, "To prune, or not to prune" (arXiv 1710.01878), for the schedule; Han et al. 2015,
        "Learning both Weights and Connections" (arXiv 1506.02626), section 3, for ``"quality"``.

    Example:
        >>> schedule = scc_tf.tfmot.PolynomialDecay(0.5, 0.9, begin_step=0, end_step=1000)   # doctest: +SKIP
        >>> masked.fit(images, labels, callbacks=[MagnitudePruning(schedule)])               # doctest: +SKIP
    """

    rank = 2

    def __init__(
        self,
        schedule: Any,
        scope: str = "layer",
        *,
        quality: float = 1.0,
        block: tuple[int, int] = (1, 1),
        pooling: str = "AVG",
        zeros_of: tuple[int, int] | None = None,
        include_frozen: bool = False,
    ):
        super().__init__()
        self._by_layer = isinstance(schedule, Mapping)
        self._schedules = list(schedule.values()) if self._by_layer else [schedule]
        if not all(map(callable, self._schedules)):
            raise ValueError(f"Expected schedule to be a schedule of TF-MOT. {received('schedule', schedule)}")
        self.schedule = schedule
        self.scope = check_choice("scope", scope, SCOPES)
        self.quality = check_number("quality", quality, 0)
        self.block, self.pooling = _pair("block", block, least=1), check_choice("pooling", pooling, POOLINGS)
        self.zeros_of = zeros_of if zeros_of is None else _pair("zeros_of", zeros_of, least=0)
        if scope != "layer" and (self.block != (1, 1) or zeros_of or self._by_layer):
            raise ValueError(
                "Expected blocks, zeros_of and schedules by layer with scope='layer'. Received: "
                f"scope={scope!r}, block={block}, zeros_of={zeros_of}, schedule={schedule}"
            )
        self.include_frozen = include_frozen
        self.history = []

    @property
    def logged(self):
        """The sparsity since the last pruning."""
        return {"sparsity": self.history[-1]["sparsity"]} if self.history else {}

    def on_train_begin(self, logs=None):
        """Refuse a model without masks; prune if the schedule begins at once."""
        layers = masked_layers(self.model, self.include_frozen)
        if not layers:
            frozen = bool(masked_layers(self.model))
            wanted = "a layer with masks that is not frozen (trainable=False), or include_frozen=True"
            raise ValueError(
                f"Expected {wanted if frozen else 'a model with masks, see scc_tf.add_masks'}. "
                f"Received: {self.model.name!r}"
            )
        names = {layer.name for layer in layers}
        if self._by_layer and (unknown := set(self.schedule) - names):
            raise ValueError(f"Expected schedules for layers with masks, {sorted(names)}. Received: {sorted(unknown)}")
        self.history = []
        if not self.take_up():
            self.prune()

    def on_train_batch_end(self, batch, logs=None):
        """Prune if it is time."""
        self.prune()
        super().on_train_batch_end(batch, logs)

    def prune(self):
        """Set the masks, if the schedule says so for the step that the model's optimizer has reached."""
        said = {id(schedule): sparsity_at(schedule, self.step) for schedule in self._schedules}
        if not any(due for due, _ in said.values()):  # at most steps: nothing else may cost time then
            return
        due = []
        for layer in masked_layers(self.model, self.include_frozen):
            is_due, sparsity = said.get(id(self.schedule.get(layer.name) if self._by_layer else self.schedule), (0, 0))
            due += [(layer, name, sparsity) for name in layer.kernel_names if is_due]
        kernels = [ops.convert_to_numpy(getattr(layer, name)) for layer, name, _ in due]
        if self.scope == "global":
            masks = global_masks(kernels, due[0][-1])
        else:
            masks = [self._mask(*of, kernel) for of, kernel in zip(due, kernels, strict=True)]
        for (layer, name, _), mask in zip(due, masks, strict=True):
            layer.prune(mask, name)
        if due:
            self.history.append({"step": self.step, "sparsity": sparsity_of(self.model, self.include_frozen)})

    def _mask(self, layer, name, sparsity, kernel):
        if self.scope == "quality":
            return quality_mask(kernel, self.quality, ops.convert_to_numpy(layer.masks[name]) > 0)
        block = self.block if kernel.ndim == 2 else (1, 1)
        return mask_of(kernel, sparsity, block=block, pooling=self.pooling, zeros_of=self.zeros_of)

    def state(self):
        """The prunings so far."""
        return {"history": self.history}

    def restore(self, state):
        """Go on with them."""
        self.history = state["history"]


def _pair(name, pair, least):
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"Expected {name} to be two whole numbers. {received(name, pair)}")
    return tuple(check_count(name, size, least) for size in pair)


def masked_layers(model, include_frozen=True):
    """The layers of a model that have masks, nested ones included, each once."""
    masked = [layer for layer in all_layers(model) if isinstance(layer, Masked)]
    return [layer for layer in masked if include_frozen or not is_frozen(layer)]


def sparsity_of(model, include_frozen=True):
    """Fraction of the weights of a model's masked kernels that are pruned, in [0, 1]."""
    layers = masked_layers(model, include_frozen)
    masks = [ops.convert_to_numpy(mask) for layer in layers for mask in layer.masks.values()]
    return 1 - float(sum(mask.sum() for mask in masks)) / sum(mask.size for mask in masks)
