"""The TFLite container: read it, look into it, strip it, and pack it so that equal vectors are stored once.

The object form of a model (``ModelT``) comes from the schema that ships with TensorFlow.
"""

import flatbuffers
import numpy as np

try:
    from tensorflow.lite.python import schema_py_generated as schema
except ImportError:  # once TensorFlow leaves it to LiteRT
    from ai_edge_litert import schema_py_generated as schema

__all__ = [
    "add_constant",
    "add_operator",
    "add_tensor",
    "array_of",
    "index_of",
    "make_names_unique",
    "opcode_name",
    "pack",
    "read",
    "replace_input",
    "schema",
    "set_versions_by",
    "strip",
    "takers_of_filter",
]

IDENTIFIER = b"TFL3"
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_DTYPES = {
    schema.TensorType.FLOAT32: np.dtype("<f4"),
    schema.TensorType.FLOAT16: np.dtype("<f2"),
    schema.TensorType.INT8: np.dtype("i1"),
    schema.TensorType.INT32: np.dtype("<i4"),
    schema.TensorType.INT64: np.dtype("<i8"),
}


class _SharingBuilder(flatbuffers.Builder):
    """Writes a vector or string that it has written before as a reference to the first one."""

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def _once(self, key, write):
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]

    def CreateNumpyVector(self, x):
        """As the base class, but each content once."""
        write = super().CreateNumpyVector
        return self._once((x.dtype.str, x.tobytes()), lambda: write(x))

    def CreateString(self, s, *args, **kwargs):
        """As the base class, but each string once."""
        write = super().CreateString
        return self._once(("string", s), lambda: write(s, *args, **kwargs))


def read(data):
    """Parse the bytes of a ``.tflite`` file; buffers that lie behind the flatbuffer are taken in.

    Args:
        data: bytes.

    Returns:
        ``ModelT``.
    """
    model = schema.ModelT.InitFromPackedBuf(bytes(data))
    for buffer in model.buffers:
        if buffer.offset > 1 and buffer.size:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def pack(model):
    """The bytes of a model; equal vectors (scales, zero points, shapes, weights) are written once.

    Args:
        model: ``ModelT``.

    Returns:
        bytes of a ``.tflite`` file.
    """
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = _SharingBuilder(size + 4096)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def opcode_name(model, operator):
    """The name of an operator in the schema, such as ``"CONV_2D"``."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _NAMES.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")


def array_of(model, tensor):
    """The value of a constant tensor in its shape, or None for a computed one or a type that is not read here."""
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type not in _DTYPES:
        return None
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), _DTYPES[tensor.type]).reshape(tensor.shape)


def make_names_unique(model):
    """Give every tensor a name of its own, in place; inputs and outputs of the main graph keep theirs."""
    main, taken = model.subgraphs[0], set()
    ends = dict.fromkeys(int(i) for i in (*main.inputs, *main.outputs))
    for place, graph in enumerate(model.subgraphs):
        mark = b"#" if graph is main else b"#%d#" % place
        for index in dict.fromkeys([*(ends if graph is main else ()), *range(len(graph.tensors))]):
            tensor = graph.tensors[index]
            name = tensor.name or b"tensor"
            tensor.name = name if name not in taken else b"%s%s%d" % (name, mark, index)
            taken.add(tensor.name)


def index_of(graph, name):
    """The index of the tensor of that name."""
    return next(i for i, tensor in enumerate(graph.tensors) if tensor.name == name.encode())


def add_tensor(graph, name, shape, tensor_type, quantization=None):
    """Append a computed tensor to a graph and return its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), np.asarray(shape, np.int32), tensor_type
    tensor.quantization, tensor.buffer = quantization, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_constant(model, graph, name, shape, tensor_type, data, quantization=None):
    """Append a constant tensor with the given bytes to a graph and return its index."""
    index = add_tensor(graph, name, shape, tensor_type, quantization)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    graph.tensors[index].buffer = len(model.buffers) - 1
    return index


def add_operator(model, graph, place, name, inputs, outputs, options=None):
    """Insert an operator of the given name before the operator at ``place``."""
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
    if options is not None:
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
    graph.operators.insert(place, operator)


def takers_of_filter(graph, index):
    """Places of the operators that take a tensor as their filter, which is the second input."""
    return [
        place
        for place, operator in enumerate(graph.operators)
        if operator.inputs is not None and len(operator.inputs) > 1 and operator.inputs[1] == index
    ]


def replace_input(operator, which, index):
    """Let an operator read another tensor at one of its inputs."""
    operator.inputs = np.array(operator.inputs, np.int32)
    operator.inputs[which] = index


def set_versions_by(model, version_of):
    """Give every operator its own entry of code and version; `strip` merges equal ones.

    Args:
        model: ``ModelT``, changed in place.
        version_of: function ``(model, graph, operator) -> version``.
    """
    codes = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = schema.OperatorCodeT(**vars(model.operatorCodes[operator.opcodeIndex]))
            code.version = version_of(model, graph, operator)
            codes.append((operator, code))
    for index, (operator, _) in enumerate(codes):
        operator.opcodeIndex = index
    model.operatorCodes = [code for _, code in codes]


def strip(model, names=True):
    """Drop, in place, what no interpreter needs; the signature and the names of inputs and outputs stay.

    Dropped are description and metadata, names of inner tensors, empty quantization tables, and every tensor,
    buffer and operator code that nothing refers to. Equal constants share a buffer.

    Args:
        model: ``ModelT``.
        names: whether to drop the names of inner tensors.

    Returns:
        ``{name: index}`` of the tensors of the first graph, with the names and indices from before and after.
    """
    model.description = model.metadata = model.metadataBuffer = None
    named = [_strip_graph(graph, names) for graph in model.subgraphs]
    for signature in model.signatureDefs or []:
        places = named[signature.subgraphIndex][1]
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = places[entry.tensorIndex]
    _merge_codes(model)
    _merge_buffers(model)
    return named[0][0]


def _strip_graph(graph, drop_names):
    """Drop unused tensors and inner names; returns ``{name: new index}`` and ``{old index: new index}``."""
    graph.name = None
    ends = {int(i) for i in (*graph.inputs, *graph.outputs)}
    used = set(ends)
    for operator in graph.operators:
        for indices in (operator.inputs, operator.outputs, operator.intermediates):
            used |= {int(i) for i in (indices if indices is not None else ())}
    kept = sorted(used - {-1})
    places = {old: new for new, old in enumerate(kept)} | {-1: -1}

    def moved(indices):
        return None if indices is None else np.asarray([places[int(i)] for i in indices], np.int32)

    for operator in graph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
        operator.intermediates = moved(operator.intermediates)
    names = {graph.tensors[old].name: places[old] for old in kept}
    for old in kept:
        tensor = graph.tensors[old]
        tensor.name = None if drop_names and old not in ends else tensor.name
        tensor.shape = None if tensor.shape is None else np.asarray(tensor.shape, np.int32)
        if tensor.quantization is not None and tensor.quantization.scale is None:
            tensor.quantization = None
    graph.tensors = [graph.tensors[old] for old in kept]
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    return {name.decode(): place for name, place in names.items() if name}, places


def _merge_codes(model):
    codes, places = [], {}
    for operator in (operator for graph in model.subgraphs for operator in graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        key = (code.builtinCode, code.deprecatedBuiltinCode, code.customCode, code.version)
        if key not in places:
            places[key] = len(codes)
            codes.append(code)
        operator.opcodeIndex = places[key]
    model.operatorCodes = codes


def _merge_buffers(model):
    buffers, places = [schema.BufferT()], {}  # buffer 0 is the empty one
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        buffer = model.buffers[tensor.buffer]
        if buffer.data is None:
            tensor.buffer = 0
            continue
        buffer.data = np.asarray(buffer.data, np.uint8)
        key = buffer.data.tobytes()
        if key not in places:
            places[key] = len(buffers)
            buffers.append(buffer)
        tensor.buffer = places[key]
    model.buffers = buffers
