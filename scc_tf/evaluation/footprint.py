"""How large one model is, and how much it computes."""

import dataclasses

import numpy as np
from keras import ops

from scc_tf.conversion import to_plain
from scc_tf.export.packed import is_compressed, packed_bytes
from scc_tf.flops import count_operations
from scc_tf.surgery import remove_dead_channels

__all__ = ["Footprint", "measure_footprint"]


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Size and work of one model. None stands for what could not be found out; the report's notes say why.

    A model without compressed layers has no packed file, and needs no note for it.

    Parameters are those of the plain model that computes the same (`scc_tf.to_plain`): kernels, biases, batch
    statistics, but no bit depths, exponents, masks or codebooks.

    Attributes:
        float32_bytes: four for each parameter.
        stored_bytes: length of the whole file that `scc_tf.save_packed` writes now; a file from an earlier version may
            be longer.
        parameters: their number.
        nonzero_parameters: those that are not 0.
        live_parameters: what is left when channels that do nothing are removed (`scc_tf.remove_dead_channels`).
        multiply_accumulates: for one example, see `scc_tf.flops.count_operations`.
        live_multiply_accumulates: the same when channels that do nothing are removed.
        nonzero_multiply_accumulates: those with a weight that is not 0.
    """

    float32_bytes: int
    stored_bytes: int | None
    parameters: int
    nonzero_parameters: int
    live_parameters: int
    multiply_accumulates: int | None
    live_multiply_accumulates: int | None
    nonzero_multiply_accumulates: int | None


def measure_footprint(model, stored=True):
    """``(Footprint, notes)`` of a model, plain or compressed in any way; the notes say what is missing and why.

    Packing it, if ``stored``, takes about a second per million weights.

    Example:
        >>> import keras
        >>> footprint, notes = measure_footprint(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]))
        >>> footprint.float32_bytes, footprint.multiply_accumulates, footprint.stored_bytes is None
        (144, 32, True)
    """
    plain, notes, size, work = to_plain(model), [], None, (None, None, None)
    smaller = remove_dead_channels(plain)[0]
    if stored and is_compressed(model):
        try:
            size = len(packed_bytes(model))
        except ValueError as error:
            notes.append(f"no packed file: {str(error).partition(' Received')[0]}")
    try:
        whole, live = count_operations(plain), count_operations(smaller)
        work = (whole.multiply_accumulates, live.multiply_accumulates, whole.nonzero_multiply_accumulates)
        notes += [f"multiply-accumulates without those of layer {name!r}" for name in whole.uncounted]
    except ValueError as error:
        notes.append(f"no multiply-accumulates: {error}")
    parameters, nonzero = plain.count_params(), [np.count_nonzero(ops.convert_to_numpy(w)) for w in plain.weights]
    footprint = Footprint(4 * parameters, size, parameters, int(sum(nonzero)), smaller.count_params(), *work)
    return footprint, tuple(notes)
