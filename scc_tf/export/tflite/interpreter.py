"""Run a TFLite file, as a phone would."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from scc_tf.arguments import check_array, check_count, check_path, received
from scc_tf.export.tflite.conversion import file_name

__all__ = ["Runner", "as_type", "run_tflite"]


def run_tflite(path: str | Path, inputs: Any, threads: int = 1) -> Any:
    """Outputs of a TFLite file, example by example, by LiteRT.

    Args:
        path: the file; it takes a batch of one.
        inputs: what ``model.predict`` takes: an array ``(N, …)``, for several inputs a list in the order of the model's
            inputs or a dict by their names. Arrays are cast to the types that the file takes.
        threads: of the interpreter.

    Returns:
        Array ``(N, …)``. For a file of several outputs a list of arrays if the model had one, else a dict by name.

    Raises:
        ValueError: if the inputs are not those that the file takes, not finite, or no numbers; as the interpreter, if
            the file is no TFLite file.
        FileNotFoundError: if there is no such file.

    Example:
        >>> classes = run_tflite("mnist.tflite", images).argmax(-1)             # doctest: +SKIP
    """
    check_path("path", path, exists=True)
    runner = Runner(path, check_count("threads", threads))
    outputs = runner(runner.checked(inputs))
    if len(outputs) == 1 or all(map(_number, outputs)):
        return [*outputs.values()] if len(outputs) > 1 else next(iter(outputs.values()))
    return outputs


def as_type(name, array, dtype):
    """An array in another type; a ValueError if fractions, negative or large numbers would become other integers."""
    converted = array.astype(dtype)
    if converted.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise ValueError(f"Expected {name} to hold numbers of type {converted.dtype}. {received(name, array)}")
    return converted


class Runner:
    """One interpreter with one file.

    Args:
        file: path, or the bytes of the file.
        threads: of the interpreter.
        preserve: whether it keeps what is computed inside, to be looked at.

    Attributes:
        inputs: ``{name: details}`` of the interpreter, in the order of the file; names are those of the signature.
        outputs: the same of what comes out.
    """

    def __init__(self, file, threads=1, preserve=False):
        from ai_edge_litert.interpreter import Interpreter  # here: it is a large library that only this needs

        source = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
        self.interpreter = Interpreter(num_threads=threads, experimental_preserve_all_tensors=preserve, **source)
        self.interpreter.allocate_tensors()
        named = self.interpreter.get_signature_runner() if self.interpreter.get_signature_list() else None
        entries, ends = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        places = {entry["index"]: place for place, entry in enumerate(entries)}
        found = named.get_input_details() if named else {entry["name"]: entry for entry in entries}
        self.inputs = dict(sorted(found.items(), key=lambda item: places[item[1]["index"]]))
        found = named.get_output_details() if named else {end["name"]: end for end in ends}
        self.outputs = dict(sorted(found.items(), key=lambda item: (_number(item[0]) or (1, 0), item[0])))

    def checked(self, inputs):
        """Inputs of `run_tflite` as ``{name: array}``, in the types of the file; a ValueError if it takes no such."""
        names = [*self.inputs]
        if isinstance(inputs, dict):
            named = {file_name(name): array for name, array in inputs.items()}
        else:
            listed = isinstance(inputs, list | tuple) and (
                len(names) > 1 or [np.ndim(x) for x in inputs] == [self._rank]
            )
            arrays = list(inputs) if listed else [inputs]
            named = dict(zip(names, arrays, strict=True)) if len(arrays) == len(names) else {}
        if set(named) != set(names):
            raise ValueError(
                f"Expected inputs to hold an array for each of {names}, in a list or a dict. "
                f"{received('inputs', inputs)}"
            )
        arrays = {name: self._checked(name, named[name]) for name in names}
        if len({len(array) for array in arrays.values()}) != 1:
            counts = {name: len(array) for name, array in arrays.items()}
            raise ValueError(f"Expected as many examples for every input. Received: {counts}")
        return arrays

    @property
    def _rank(self):
        return len(next(iter(self.inputs.values()))["shape"])

    def _checked(self, name, values):
        label = "inputs" if len(self.inputs) == 1 else f"inputs[{name!r}]"
        batch, *example = self.inputs[name]["shape"].tolist() or [1]
        if batch != 1:
            raise ValueError(f"Expected a file that takes a batch of one. Received: a batch of {batch} for {name!r}")
        array = check_array(label, values)
        if example[-1:] == [1] and array.ndim == len(example):  # as Keras does
            array = array[..., None]
        if array.shape[1:] != tuple(example):
            raise ValueError(f"Expected examples of shape {tuple(example)}. Received: {label}={array.shape}")
        return as_type(label, array, self.inputs[name]["dtype"])

    def __call__(self, inputs):
        """Outputs ``{name: array (N, …)}`` for inputs ``{name: array (N, …)}`` in the types of the file."""
        count = len(next(iter(inputs.values())))
        rows = [self.row({name: array[place] for name, array in inputs.items()}) for place in range(count)]
        return {name: np.array([row[name] for row in rows]) for name in self.outputs}

    def row(self, example):
        """Outputs ``{name: array}`` for one example ``{name: array}``, all without their batch of one."""
        for name, array in example.items():
            self.interpreter.set_tensor(self.inputs[name]["index"], np.asarray(array)[None])
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(end["index"])[0] for name, end in self.outputs.items()}


def _number(name):
    """``(0, place)`` of an output that is called by its place, for sorting; None for another one."""
    return (0, int(name.rpartition("_")[2])) if re.fullmatch(r"output_\d+", name) else None
