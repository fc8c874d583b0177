"""Version 3: the whole of a model in one adaptive stream, by the coder of `scc_tf.coding.mixing`.

The stream holds no lengths, no names but those of the architecture, and no shapes. In order:

1. the text of the architecture (`scc_tf.export.packed.architecture`), after the dictionary ``architecture_3.dict``;
2. of every self-compressing kernel the codes, and the exponents of the channels that have a code other than 0: 0 if
   all are one multiple of 1/16, and then its difference in sixteenths from the last kernel that had one, for the first
   from -3; 1 if all are the same, and then that as a float; or else 2, and all of them as floats;
3. the kernels with shared weights or masks (`scc_tf.export.packed.mixed_sparse`);
4. the other variables, in the order of `scc_tf.export.packed.tensors`.

The dictionary is part of the format. It must never change: files written with it would become unreadable.
"""

import functools
from pathlib import Path

import numpy as np
from keras import ops

from scc_tf.coding.mixing import MixedCoder, code_array, code_floats
from scc_tf.coding.mixing.kinds import FLAG, STEP
from scc_tf.export.packed.architecture import build_architecture
from scc_tf.export.packed.arrangement import Arrangement
from scc_tf.export.packed.mixed_sparse import code_sparse
from scc_tf.export.packed.quantized import assign_kernel, live_codes, quantized_kernels
from scc_tf.export.packed.tensors import stored_arrays, variable_groups

__all__ = ["read_dictionary", "read_mixed", "write_mixed"]

_SIXTEENTHS = 16
_FIRST = -3 * _SIXTEENTHS
_LARGEST = 1 << 12  # sixteenths; float32 ends before
_STEP, _SAME, _EACH = range(3)


@functools.cache
def read_dictionary():
    """The dictionary of version 3, bytes."""
    return (Path(__file__).parents[1] / "architecture_3.dict").read_bytes()


def write_mixed(model, text):
    """Write a model.

    Args:
        model: functional model.
        text: its `scc_tf.export.packed.architecture.architecture_text`, at most ``LONGEST_TEXT`` bytes.

    Returns:
        ``(data, bits, kernels)``: the bytes; bits per part ``{"architecture": …, "codes": …, "exponents": …}``; and
        those of `scc_tf.export.packed.mixed_sparse.code_sparse`.

    Raises:
        ValueError: if a kernel is not finite.
    """
    coder = MixedCoder()
    coder.text(text, read_dictionary())
    text_bits = coder.bits
    bits, kernels = _code_tensors(coder, model)
    return coder.getvalue(), {"architecture": text_bits, **bits}, kernels


def read_mixed(data, max_weights, constants=()):
    """Read what `write_mixed` wrote.

    Args:
        data: the bytes.
        max_weights: most weights that the model may have.
        constants: of its graph, as for `scc_tf.export.packed.architecture.build_architecture`.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: if the bytes are damaged, or the architecture is none that may be built.
    """
    coder = MixedCoder(data)
    model = build_architecture(coder.text(dictionary=read_dictionary()), max_weights, constants)
    _code_tensors(coder, model)
    coder.check_end()
    return model


def _code_tensors(coder, model):
    """Write all weights of a model, or read them into it; returns what they cost as `write_mixed` does."""
    start, exponent_bits, step = coder.bits, 0.0, _FIRST
    for layer, fmt in quantized_kernels(model):
        arrangement = Arrangement(fmt)
        if coder.reading:
            codes, exponents = np.zeros(arrangement.shape, np.int32), np.zeros(fmt.channels, np.float32)
        else:
            codes = arrangement.coded(live_codes(layer, fmt))
            exponents = np.array(ops.convert_to_numpy(fmt.exponent), np.float32)
        coder.kernel(codes)
        before = coder.bits
        live = codes.any(axis=(0, 1, 2))
        if live.any():
            own = exponents[live]
            step = _code_exponents(coder, own, step)
            exponents[live] = own
        exponent_bits += coder.bits - before
        if coder.reading:
            assign_kernel(layer, fmt, arrangement, codes, exponents)
    bits = {"codes": coder.bits - start - exponent_bits, "exponents": exponent_bits}
    kernels = code_sparse(coder, model)
    arrays = stored_arrays(model)
    for variable in [variable for group in variable_groups(model) for variable in group]:
        array = arrays[id(variable)]
        code_array(coder, array)
        if coder.reading:
            variable.assign(array)
    return bits, kernels


def _code_exponents(coder, exponents, step):
    """Code the exponents of live channels, float32 ``(n,)`` and not empty, in place.

    Args:
        coder: `scc_tf.coding.mixing.MixedCoder`.
        exponents: the array.
        step: the last multiple of 1/16 that a kernel had, in sixteenths.

    Returns:
        The last one now.
    """
    first = float(exponents[0]) * _SIXTEENTHS
    form = _EACH
    if (exponents.view(np.uint32) == exponents.view(np.uint32)[0]).all():
        form = _STEP if first == round(first) and abs(first) <= _LARGEST else _SAME
    form = coder.number(form, FLAG)
    if form == _STEP:
        step += coder.number(0 if coder.reading else int(first) - step, STEP)
        exponents[:] = step / _SIXTEENTHS
    elif form == _SAME:
        code_floats(coder, exponents[:1])
        exponents[:] = exponents[0]
    else:
        code_floats(coder, exponents)
    if form not in (_STEP, _SAME, _EACH) or abs(step) > _LARGEST or not np.isfinite(exponents).all():
        raise ValueError(f"Expected finite exponents. Received: form {form}, {step} / 16, or others")
    return step
