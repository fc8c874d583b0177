"""Int8 activations, calibrated on data, around weights that are integers already: AI Edge Quantizer's part.

The quantizer leaves integer weights and their scales alone. Its own calibration is a moving average of the ranges
of single samples; here it is their true minimum and maximum. What stays float is measured, see `costs`.
"""

import contextlib
import importlib.util
import io
import re
import warnings

import numpy as np

from scc_tf.export.tflite.answers import LOSSY, answers_of_file, likeness
from scc_tf.export.tflite.costs import activation_costs, operators_at, too_costly
from scc_tf.export.tflite.flatbuffer import array_of, opcode_name, pack, read, schema
from scc_tf.export.tflite.interpreter import Runner
from scc_tf.export.tflite.matching import FILTER_OPS
from scc_tf.export.tflite.quiet import quiet
from scc_tf.export.tflite.samples import spread_over
from scc_tf.export.tflite.storage import RAW_OPS, write

__all__ = ["check_installed", "quantize_activations"]

TABLE_OPS = ("BATCH_MATMUL", "EMBEDDING_LOOKUP", "GATHER")
_HIGHEST = 3e38
_COMPARED, _MEASURED = 128, 32  # examples that tell whether int8 will do, and those that tell why not


def check_installed():
    """Refuse int8 compute without its optional packages.

    Raises:
        ValueError: if ``ai-edge-quantizer`` is not installed.
    """
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ValueError(
            "Expected the package ai-edge-quantizer for compute='int8' (pip install 'scc_tf[int8]'). "
            "Received: an installation without it"
        )


def _recipe(keep_float):
    """Int8 for every operator but the ends, and those that make the tensors named in ``keep_float``."""
    from ai_edge_quantizer import algorithm_manager, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", Operation.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    untouched = [(".*", operation) for operation in (Operation.INPUT, Operation.OUTPUT)]
    untouched += [(rf"^{re.escape(name)};", Operation.ALL_SUPPORTED) for name in sorted(keep_float)]
    for regex, operation in untouched:
        recipe.add_quantization_config(regex, operation, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    return recipe


@contextlib.contextmanager
def _held_back():
    """Without the quantizer's notes, progress bars, and its warning of the memory that calibration takes."""
    with quiet(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def quantize_activations(model, stored, samples):
    """Give a float model the stored weights and int8 activations, where those do; inputs and outputs stay float.

    If the answers of the result are too far from those of the float model, the activations that cost most stay float.

    Args:
        model: ``ModelT`` with the stored weights as float32; every tensor has a name of its own.
        stored: list of `Stored` with values.
        samples: ``{name: array (N, …)}``, the inputs.

    Returns:
        ``(ModelT, {tensor name: Stored}, names of the tensors whose operators stay float for their ranges)``.

    Raises:
        ValueError: if the quantizer or the interpreter cannot take the model.
    """
    compared = _spread(samples, _COMPARED)
    expected = [*answers_of_file(pack(model), compared).values()]
    ranges = _calibrate(model, samples)
    unknown = operators_at(model, {tensor.name.decode() for tensor in _activations(model)} - set(ranges))
    inner = {graph.tensors[op.outputs[0]].name.decode() for graph in model.subgraphs[1:] for op in graph.operators}
    kept = set()
    for bound in (LOSSY / 2, LOSSY / 4, LOSSY / 8, None):
        result, names = _quantized(model, stored, ranges, kept | unknown | inner)
        answers = [*answers_of_file(pack(result), compared).values()]
        if bound is None or likeness(answers, expected, [*compared.values()]).is_within(LOSSY):
            break
        costs = activation_costs(model, result, _spread(samples, _MEASURED))
        kept |= operators_at(model, too_costly(costs, bound))
    return result, names, kept


def _spread(samples, most):
    return dict(zip(samples, spread_over([*samples.values()], most), strict=True))


def _quantized(model, stored, ranges, kept):
    """``(ModelT, {tensor name: Stored})`` with int8 activations but for the operators in ``kept``."""
    result = read(pack(model))
    raw = [item for item in stored if item.raw and not _slow_in_float(result, item, kept)]
    names = {write(result, item): item for item in raw}
    constants = _makers_of_constants(model, {item.filter.tensor for item in raw})
    if ranges:  # else every operator stays float
        result = _by_quantizer(result, ranges, kept | constants)
    names |= {write(result, item): item for item in stored if item not in raw}
    return result, names


def _slow_in_float(model, item, kept):
    """Whether a filter's operator stays float, and has no fast kernel for integers with float activations."""
    return item.filter.op not in RAW_OPS["dynamic"] and bool(operators_at(model, {item.filter.tensor}) & kept)


def _makers_of_constants(model, raw):
    """Outputs of the operators that take a constant float table or filter that is not stored as raw integers."""
    graph, outputs = model.subgraphs[0], set()
    for operator in graph.operators:
        if opcode_name(model, operator) not in (*FILTER_OPS, *TABLE_OPS):
            continue
        tensors = [graph.tensors[i] for i in operator.inputs[:2]]
        floats = [tensor for tensor in tensors if tensor.type == schema.TensorType.FLOAT32]
        constants = {tensor.name.decode() for tensor in floats if array_of(model, tensor) is not None}
        if constants - raw:
            outputs.add(graph.tensors[operator.outputs[0]].name.decode())
    return outputs


def _calibrate(model, samples):
    """Smallest and largest values of the float activations of a float model, as far as the interpreter tells them.

    Returns:
        ``{tensor name: {"min": …, "max": …}}``, the statistics that the quantizer takes. Beyond ±3e38, where masks put
        what no softmax shall see, is no value.
    """
    with _held_back():
        runner = Runner(pack(model), preserve=True)
    names = {tensor.name.decode() for tensor in _activations(model)}
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
            values = values[np.abs(values) < _HIGHEST]
            low, high = ranges[name]
            ranges[name] = values.min(initial=low), values.max(initial=high)
    return {
        name: {"min": np.array(low, np.float32), "max": np.array(high, np.float32)}
        for name, (low, high) in ranges.items()
        if low < high or low == high != 0  # zeros have no scale
    }


def _activations(model):
    """The computed float tensors of the main graph."""
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.FLOAT32 and array_of(model, tensor) is None:
            yield tensor


def _by_quantizer(model, ranges, keep_float):
    from ai_edge_quantizer import quantizer

    try:
        with _held_back():
            tool = quantizer.Quantizer(pack(model), _recipe(keep_float).get_quantization_recipe())
            result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except Exception as error:  # of any type, and of several lines
        raise ValueError(
            "Expected a model that ai-edge-quantizer can give int8 activations (compute='dynamic' does without). "
            f"Received: {' '.join(str(error).split())[:300]}"
        ) from error
    return read(result.quantized_model)
