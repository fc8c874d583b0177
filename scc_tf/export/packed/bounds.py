"""What a file may ask for: so that few bytes cost neither much memory nor much time.

==========================  ===========================================================================================
what                        at most
==========================  ===========================================================================================
weights                     2^24, and 4,096 more per byte of the file; and what the caller allows
text of the architecture    2 MiB
nesting                     100 levels, of lists, objects and models together
a string, an integer        65,536 characters, 64 bits
layers and other objects    8,192, those in a nested model once per call of it
tensors between layers      65,536, with 2^28 elements each, the batch aside
decisions of the decoder     23,000 a byte
==========================  ===========================================================================================

The smallest files that were seen have 130 weights per byte; those of kernels that are all zeros need no bytes for them.
While a model is built, weights are zeros: the file has them all, and no initializer has to run.
"""

import contextlib
import json
import math
import threading

import keras
from keras.src.saving.serialization_lib import SafeModeScope

__all__ = ["LARGEST_TEXT", "bounded", "check_work", "most_weights", "parse"]

LARGEST_TEXT = 1 << 21  # bytes
_FREE_WEIGHTS, _WEIGHTS_PER_BYTE = 1 << 24, 1 << 12
_DEEPEST = 100
_LONGEST_STRING = 1 << 16
_MOST_OBJECTS = 1 << 13
_MOST_TENSORS = 1 << 16
_LARGEST_TENSOR = 1 << 28
_TENSOR = "__keras_tensor__"
_LOCK = threading.RLock()  # a layer of the file may itself load one


def most_weights(data, allowed):
    """How many weights a file's content, bytes, may claim if the caller allows ``allowed``."""
    return min(allowed, _FREE_WEIGHTS + _WEIGHTS_PER_BYTE * len(data))


def parse(text):
    """The value of a JSON text, bytes.

    Raises:
        ValueError: if it is none, or beyond the bounds on nesting, strings and integers.
    """
    value = json.loads(text)
    _check_value(value, _DEEPEST)
    return value


def _check_value(value, depth):
    if not depth:
        raise ValueError(f"Expected at most {_DEEPEST} levels of nesting. Received: more")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_value(key, depth)
            _check_value(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, depth - 1)
    elif isinstance(value, str) and len(value) > _LONGEST_STRING:
        raise ValueError(f"Expected strings of at most {_LONGEST_STRING} characters. Received: {len(value)}")
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise ValueError("Expected integers of 64 bits. Received: a longer one")


def check_work(config):
    """Raise ValueError if a Keras configuration has too many objects, those of nested models counted per call."""
    if (work := _work(config)) > _MOST_OBJECTS:
        raise ValueError(f"Expected at most {_MOST_OBJECTS} layers and calls. Received: {work}")


def _work(value):
    if isinstance(value, list | tuple):
        return sum(map(_work, value))
    if not isinstance(value, dict) or value.get("class_name") == _TENSOR:
        return 0
    calls = value.get("inbound_nodes")
    times = max(len(calls), 1) if isinstance(calls, list) else 1
    return times * (("class_name" in value) + sum(map(_work, value.values())))


@contextlib.contextmanager
def bounded(most):
    """Build a model of at most ``most`` weights in this thread, within the other bounds and in Keras's safe mode.

    All weights come through ``add_weight`` and all tensors between layers are `keras.KerasTensor`; a `Normalization`
    makes constants of the size of its input.

    Raises:
        ValueError: beyond a bound, before anything is allocated.
    """
    thread, counts = threading.get_ident(), {"weights": 0, "tensors": 0}
    layer, tensor, normalization = keras.layers.Layer, keras.KerasTensor, keras.layers.Normalization
    add_weight, start, build = layer.add_weight, tensor.__init__, normalization.build

    def count(what, number, limit):
        counts[what] += number
        if counts[what] > limit:
            raise ValueError(f"Expected at most {limit} {what}. Received: {counts[what]} or more")

    def counted_weight(self, shape=None, initializer=None, *args, **kwargs):
        if threading.get_ident() == thread:
            count("weights", math.prod(_sizes(shape)), most)
            initializer = "zeros"
        return add_weight(self, shape, initializer, *args, **kwargs)

    def counted_tensor(self, shape, *args, **kwargs):
        if threading.get_ident() == thread:
            count("tensors", 1, _MOST_TENSORS)
            if (size := math.prod(n or 1 for n in _sizes(shape))) > _LARGEST_TENSOR:
                raise ValueError(f"Expected tensors of at most {_LARGEST_TENSOR} elements. Received: {size}")
        start(self, shape, *args, **kwargs)

    def counted_constants(self, input_shape):
        if threading.get_ident() == thread and self.input_mean is not None and input_shape is not None:
            count("weights", 2 * math.prod(input_shape[axis] or 1 for axis in self.axis), most)
        build(self, input_shape)

    with _LOCK, SafeModeScope(safe_mode=True):
        layer.add_weight, tensor.__init__, normalization.build = counted_weight, counted_tensor, counted_constants
        try:
            yield
        finally:
            thread = None  # a layer keeps its build
            layer.add_weight, tensor.__init__, normalization.build = add_weight, start, build


def _sizes(shape):
    return () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
