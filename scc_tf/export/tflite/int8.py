"""Int8 activations, calibrated on data, around weights that are integers already: AI Edge Quantizer's part.

The quantizer leaves integer weights and their scales alone. Its own calibration is a moving average of the ranges
of single samples; here it is their true minimum and maximum.

One scale holds for a whole tensor. Where few values are far out, such as the -1e9 of an attention mask or the factors
of a normalization over constant columns, the others are lost in its steps. No list of layers finds them all: each
tensor alone is rounded as the int8 file does it, in the float network, and the answers are compared. Those that cost
most stay float.
"""

import contextlib
import importlib.util
import io
import re
import warnings

import numpy as np

from scc_tf.export.tflite.answers import LOSSY, answers_of_file, likeness
from scc_tf.export.tflite.conversion import quiet
from scc_tf.export.tflite.flatbuffer import FLOAT32, INT8, TFLiteFile, indices, options
from scc_tf.export.tflite.interpreter import Runner
from scc_tf.export.tflite.matching import FILTER_OPS
from scc_tf.export.tflite.samples import spread_over
from scc_tf.export.tflite.storage import RAW_OPS, write

__all__ = ["check_installed", "quantize_activations"]

TABLE_OPS = ("BATCH_MATMUL", "EMBEDDING_LOOKUP", "GATHER")
_HIGHEST = 3e38  # beyond it masks put what no softmax shall see: no value
_COMPARED, _MEASURED = 128, 32  # examples that tell whether int8 will do, and those that tell why not


def check_installed():
    """Refuse int8 compute without its optional package."""
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ValueError(
            "Expected the package ai-edge-quantizer for compute='int8' (pip install 'scc_tf[int8]'). "
            "Received: an installation without it"
        )


def quantize_activations(file, stored, samples):
    """Give a float file the stored weights and int8 activations, where those do; inputs and outputs stay float.

    If the answers of the result are too far from those of the float file, the activations that cost most stay float.
    Returns ``(TFLiteFile, {tensor name: Stored}, names of the tensors whose operators stay float for their ranges)``; a
    ValueError if the quantizer or the interpreter cannot take the file.
    """
    compared = spread_over(samples, _COMPARED)
    expected = [*answers_of_file(file.pack(), compared).values()]
    activations = {
        file.name(i) for i, t in enumerate(file.graph.tensors) if t.type == FLOAT32 and file.array(i) is None
    }
    ranges = _ranges(file, activations, samples)
    always = _operators_at(file, activations - set(ranges))
    always |= {g.tensors[op.outputs[0]].name.decode() for g in file.model.subgraphs[1:] for op in g.operators}
    kept = set()
    for bound in (LOSSY / 2, LOSSY / 4, LOSSY / 8, None):
        result, names = _quantized(file, stored, ranges, kept | always)
        answers = [*answers_of_file(result.pack(), compared).values()]
        if bound is None or likeness(answers, expected, [*compared.values()]).passes:
            break
        costs = _costs(file, result, spread_over(samples, _MEASURED))
        kept |= _operators_at(file, too_costly(costs, bound))
    return result, names, kept


def _ranges(file, names, samples):
    """``{tensor name: {"min": …, "max": …}}``, as the quantizer takes them, as far as the interpreter tells them."""
    with _held_back():
        runner = Runner(file.pack(), preserve=True)
    places = {entry["name"]: entry["index"] for entry in runner.interpreter.get_tensor_details()}
    ranges = {name: (np.inf, -np.inf) for name in names if name in places}
    for row in zip(*samples.values(), strict=True):
        runner.row(dict(zip(samples, row, strict=True)))
        for name in [*ranges]:
            try:
                values = runner.interpreter.get_tensor(places[name])
            except ValueError:  # it is not kept, as what a loop carries
                del ranges[name]
                continue
            values, (low, high) = values[np.abs(values) < _HIGHEST], ranges[name]
            ranges[name] = values.min(initial=low), values.max(initial=high)
    return {
        name: {"min": np.array(low, np.float32), "max": np.array(high, np.float32)}
        for name, (low, high) in ranges.items()
        if low < high or low == high != 0  # zeros have no scale
    }


def _quantized(file, stored, ranges, kept):
    """``(TFLiteFile, {tensor name: Stored})`` with int8 activations but for the operators in ``kept``."""
    result = file.copy()
    slow = {item for item in stored if item.filter.op not in RAW_OPS["dynamic"]}  # with float activations
    raw = [i for i in stored if i.raw and not (i in slow and _operators_at(result, {i.filter.tensor}) & kept)]
    names = {write(result, item): item for item in raw}
    kept = kept | _makers_of_constants(file, {item.filter.tensor for item in raw})
    if ranges:  # else every operator stays float
        result = _by_quantizer(result, ranges, kept)
    return result, names | {write(result, item): item for item in stored if item not in raw}


def _makers_of_constants(file, raw):
    """Outputs of the operators that take a constant float table or filter that is not stored as raw integers."""
    outputs = set()
    for operator in file.graph.operators:
        if file.op(operator) in (*FILTER_OPS, *TABLE_OPS):
            floats = [i for i in indices(operator.inputs[:2]) if file.graph.tensors[i].type == FLOAT32]
            if {file.name(i) for i in floats if file.array(i) is not None} - raw:
                outputs.add(file.name(operator.outputs[0]))
    return outputs


@contextlib.contextmanager
def _held_back():
    """Without the quantizer's notes, progress bars, and its warning of the memory that calibration takes."""
    with quiet(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _by_quantizer(file, ranges, keep_float):
    """Int8 for every operator but the ends, and those that make the tensors named in ``keep_float``."""
    from ai_edge_quantizer import algorithm_manager, quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    recipe, untouched = recipe_manager.RecipeManager(), algorithm_manager.AlgorithmName.NO_QUANTIZE
    recipe.add_static_config(".*", Operation.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for operation in (Operation.INPUT, Operation.OUTPUT):
        recipe.add_quantization_config(".*", operation, algorithm_key=untouched)
    for name in sorted(keep_float):
        scope = rf"^{re.escape(name)};"
        recipe.add_quantization_config(scope, Operation.ALL_SUPPORTED, algorithm_key=untouched)
    try:
        with _held_back():
            tool = quantizer.Quantizer(file.pack(), recipe.get_quantization_recipe())
            result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except Exception as error:  # of any type, and of several lines
        raise ValueError(
            "Expected a model that ai-edge-quantizer can give int8 activations (compute='dynamic' does without). "
            f"Received: {' '.join(str(error).split())[:300]}"
        ) from error
    return TFLiteFile(result.quantized_model)


def _costs(file, quantized, samples):
    """Squared error of the answers that each int8 tensor causes alone, ``{tensor name: error}``.

    In units of the spread of the answers; infinite where they are no numbers.
    """
    data = file.pack()
    floats = {file.name(i) for i, tensor in enumerate(file.graph.tensors) if tensor.type == FLOAT32}
    expected, costs = [*answers_of_file(data, samples).values()], {}
    for tensor in quantized.graph.tensors:
        name = tensor.name.decode().removesuffix("_quantized")
        if tensor.type == INT8 and name in floats and name not in costs:
            answers = answers_of_file(_rounded_at(data, name, tensor.quantization), samples)
            costs[name] = likeness([*answers.values()], expected).error ** 2
    return costs


def too_costly(costs, bound):
    """The fewest tensors without which the errors of the others, which add up in squares, stay within a bound."""
    total, cheap = 0.0, set()
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        total += cost
        if not total <= bound**2:
            break
        cheap.add(name)
    return set(costs) - cheap


def _rounded_at(data, name, quantization):
    """The bytes of a float file in which one tensor is rounded to int8 and back."""
    file = TFLiteFile(data)
    index, operators = file.index(name), file.graph.operators
    shape = file.graph.tensors[index].shape
    codes = file.tensor(f"{name}/codes", shape, INT8, quantization)
    other = file.tensor(f"{name}/other", shape)
    makers = [place for place, operator in enumerate(operators) if index in indices(operator.outputs)]
    if makers:  # its maker writes elsewhere, and who reads it gets the rounded values
        outputs = operators[makers[0]].outputs
        operators[makers[0]].outputs = np.array([other if i == index else i for i in outputs], np.int32)
        before, after, place = other, index, makers[0] + 1
    else:  # an input of the model, or a constant
        for operator in operators:
            operator.inputs = np.array([other if i == index else i for i in indices(operator.inputs)], np.int32)
        before, after, place = index, other, 0
    file.insert(place, "QUANTIZE", [before], [codes], options("Quantize"))
    file.insert(place + 1, "DEQUANTIZE", [codes], [after], options("Dequantize"))
    return file.pack()


def _operators_at(file, tensors):
    """The operators of the main graph that take or make one of these tensors: the names of their first outputs."""
    wanted = {index for index, tensor in enumerate(file.graph.tensors) if tensor.name.decode() in tensors}
    return {
        file.name(operator.outputs[0])
        for operator in file.graph.operators
        if wanted & {*indices(operator.inputs), *indices(operator.outputs)}
    }
