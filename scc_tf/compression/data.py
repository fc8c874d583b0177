"""What a user hands in as data, as `fit` takes it: batches to train on, and a part that is held out.

Arrays are drawn in an order that depends on the seed and the epoch alone, so an interrupted training goes on bit for
bit. A ``tf.data.Dataset`` or ``PyDataset`` is read in its own order.
"""

import dataclasses
import itertools
import typing

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from scc_tf.arguments import received
from scc_tf.inference import check_inputs, packed

__all__ = ["Data", "open_data"]

HELD_OUT = 0.1  # of the examples, for validation
MOST_HELD_OUT = 10_000  # examples
FEWEST = 50  # examples, below which nothing is held out
MOST_SAMPLED = 20_000  # examples that the safety set is chosen from
SAMPLE_BYTES = 2**29


@dataclasses.dataclass
class Data:
    """Examples of one task.

    Attributes:
        batches: function ``(first epoch) -> tf.data.Dataset`` of batches ``(inputs, targets[, weights])``, as many
            epochs as one likes.
        steps: batches per epoch.
        inputs: a sample of the training inputs, in the structure that the model takes.
        targets: their targets, or None.
        validation: ``(inputs, targets or None)``.
        held_out: whether no validation example is trained on.
    """

    batches: typing.Callable
    steps: int
    inputs: typing.Any
    targets: typing.Any
    validation: tuple
    held_out: bool


def open_data(model, data, validation_data=None, batch_size=None, seed=0):
    """Read what was handed in.

    Args:
        model: built Keras model.
        data: see `scc_tf.compress`.
        validation_data: the same, in arrays or batches; None holds out a tenth.
        batch_size: of arrays; None chooses.
        seed: of the order and of what is held out.

    Returns:
        `Data`.

    Raises:
        ValueError: if the model does not take the data.
    """
    if isinstance(data, keras.utils.PyDataset):
        data = _from_py_dataset(data)
    if isinstance(data, tf.data.Dataset):
        return _of_batches(model, data, validation_data, batch_size)
    return _of_arrays(model, data, validation_data, batch_size, seed)


def _split(element):
    """``(inputs, targets or None, weights or None)`` of arrays or of a batch."""
    if isinstance(element, tuple):
        if not 1 <= len(element) <= 3:
            raise ValueError(
                "Expected data to be inputs, (inputs, targets) or (inputs, targets, sample_weights). "
                f"Received: data, a tuple of {len(element)}"
            )
        return (*element, *[None] * (3 - len(element)))
    return element, None, None


def _take(structure, index):
    return keras.tree.map_structure(lambda array: array[index], structure)


def _count(structure):
    return len(keras.tree.flatten(structure)[0])


def _as_arrays(name, model, data):
    """Arrays as the model takes them; targets and weights with as many examples."""
    inputs, targets, weights = _split(data)
    inputs = packed(model, check_inputs(name, inputs, model))
    if isinstance(targets, list) and len(model.outputs) == 1:
        targets = np.asarray(targets)
    targets, weights = (
        None if part is None else keras.tree.map_structure(np.asarray, part) for part in (targets, weights)
    )
    for part in keras.tree.flatten((targets, weights)):
        if part is not None and (not part.ndim or len(part) != _count(inputs)):
            raise ValueError(
                f"Expected {name} to hold one target for each of the {_count(inputs)} examples. "
                f"{received('targets', part)}"
            )
    for part in keras.tree.flatten((targets, weights)):
        if part is not None and (part.dtype.kind not in "biuf" or not np.isfinite(part).all()):
            raise ValueError(f"Expected {name} to hold targets that are finite numbers. {received('targets', part)}")
    return inputs, targets, weights


def _of_arrays(model, data, validation_data, batch_size, seed):
    inputs, targets, weights = _as_arrays("data", model, data)
    order = np.random.default_rng((seed, 1)).permutation(_count(inputs))
    held = min(int(HELD_OUT * len(order)), MOST_HELD_OUT) if len(order) >= FEWEST and validation_data is None else 0
    chosen = np.sort(order[held:])
    parts = tuple(part for part in (inputs, targets, weights) if part is not None)
    if targets is None:
        parts = parts[:1]
    size = min(batch_size or _batch_size(len(chosen)), len(chosen))

    def of_epoch(epoch):
        drawn = np.random.default_rng((seed, 2, epoch)).permutation(chosen)
        for start in range(0, len(drawn) - size + 1, size):
            yield _take(parts, drawn[start : start + size])

    def batches(first_epoch):
        return _dataset(lambda: itertools.chain.from_iterable(map(of_epoch, itertools.count(first_epoch))), parts)

    some = chosen[np.random.default_rng((seed, 3)).permutation(len(chosen))[: _most(inputs)]]
    if held:
        validation = _take(inputs, order[:held]), None if targets is None else _take(targets, order[:held])
    else:
        validation = _validation(model, validation_data) or (inputs, targets)
    sampled = _take(inputs, some), None if targets is None else _take(targets, some)
    return Data(
        batches=batches,
        steps=len(chosen) // size,
        inputs=sampled[0],
        targets=sampled[1],
        validation=validation,
        held_out=bool(held) or validation_data is not None,
    )


def _batch_size(examples):
    """64, as the records have it; less where an epoch would have few steps."""
    return int(2 ** np.clip(np.floor(np.log2(max(examples, 1) / 16)), 2, 6))


def _most(inputs):
    """How many examples to sample."""
    size = sum(array[:1].nbytes for array in keras.tree.flatten(inputs))
    return max(1, min(MOST_SAMPLED, SAMPLE_BYTES // max(size, 1)))


def _dataset(generator, parts):
    """Batches of arrays like ``parts`` as a dataset."""
    signature = keras.tree.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), parts)
    return tf.data.Dataset.from_generator(
        lambda: map(_with_tuples, generator()), output_signature=_with_tuples(signature)
    )


def _with_tuples(structure):
    """The same with tuples for lists, which tf.data takes for arrays."""
    if isinstance(structure, dict):
        return {key: _with_tuples(part) for key, part in structure.items()}
    return tuple(map(_with_tuples, structure)) if isinstance(structure, list | tuple) else structure


def _from_py_dataset(data):
    """The batches of a ``PyDataset``, as they come, as a dataset."""
    first = data[0]
    parts = keras.tree.map_structure(np.asarray, first if isinstance(first, tuple) else (first,))

    def generator():
        for number in range(len(data)):
            batch = data[number]
            yield keras.tree.map_structure(np.asarray, batch if isinstance(batch, tuple) else (batch,))
        data.on_epoch_end()

    return _dataset(generator, parts).apply(tf.data.experimental.assert_cardinality(len(data)))


def _of_batches(model, data, validation_data, batch_size):
    if batch_size is not None:
        raise ValueError(f"Expected no batch_size beside data that comes in batches. Received: batch_size={batch_size}")
    ranks = [len(spec.shape) for spec in keras.tree.flatten(_split(data.element_spec)[0]) if spec.shape.rank]
    if ranks and max(ranks) < max(len(tensor.shape) for tensor in model.inputs):
        raise ValueError("Expected data in batches, such as data.batch(64). Received: a tf.data.Dataset of examples")
    steps = int(data.cardinality())
    if steps == tf.data.INFINITE_CARDINALITY:
        raise ValueError("Expected data that ends, such as data.take(1000). Received: a tf.data.Dataset without an end")
    if steps == tf.data.UNKNOWN_CARDINALITY:
        steps = sum(1 for _ in data)
    if not steps:
        raise ValueError("Expected data of at least one batch. Received: an empty tf.data.Dataset")
    validation = _validation(model, validation_data)
    held = 0 if validation or steps < 10 else max(1, round(HELD_OUT * steps))
    shuffled = bool(held) and _changes(data)
    training = data.skip(held)
    if shuffled:
        logging.warning(
            "The data come in another order each time, or change: validation examples are trained on, too. "
            "Give compress validation_data."
        )
    if not validation:
        validation = _gathered(model, data.take(held or steps), MOST_HELD_OUT)
    inputs, targets = _gathered(model, training, MOST_SAMPLED)
    return Data(
        batches=lambda first_epoch: training.repeat().prefetch(2),
        steps=steps - held,
        inputs=inputs,
        targets=targets,
        validation=validation,
        held_out=validation_data is not None or (bool(held) and not shuffled),
    )


def _changes(data):
    """Whether the first batch is another one each time."""
    first, again = (keras.tree.flatten(keras.tree.map_structure(np.asarray, next(iter(data)))) for _ in range(2))
    return any(a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def _gathered(model, data, most):
    """``(inputs, targets or None)``: the first examples of a dataset as arrays that the model takes."""
    parts, count = [], 0
    for element in data:
        given = tuple(part for part in _split(element)[:2] if part is not None)
        parts.append(keras.tree.map_structure(np.asarray, given))
        count += _count(parts[-1])
        if count >= min(most, _most(parts[0][0])):
            break
    whole = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    return _as_arrays("data", model, whole)[:2]


def _validation(model, data):
    """``(inputs, targets or None)`` of what was given, or None."""
    if data is None:
        return None
    if isinstance(data, keras.utils.PyDataset):
        data = _from_py_dataset(data)
    if isinstance(data, tf.data.Dataset):
        return _gathered(model, data, MOST_HELD_OUT)
    return _as_arrays("validation_data", model, data)[:2]
