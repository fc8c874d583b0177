"""The TFLite container: read it, edit its main graph, strip it, and pack it so that equal vectors are stored once."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["FLOAT32", "INT8", "TFLiteFile", "indices", "options", "schema", "tensor_type"]

FLOAT32, INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_DTYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT8": "i1", "INT4": "i1", "INT32": "<i4", "INT64": "<i8"}
_DTYPES = {getattr(schema.TensorType, name): np.dtype(dtype) for name, dtype in _DTYPES.items()}


def tensor_type(name):
    """The schema's number of a type such as ``"int8"``."""
    return getattr(schema.TensorType, name.upper())


def indices(vector):
    """Indices of tensors as ints; () where the file has none."""
    return () if vector is None else tuple(int(index) for index in vector)


def options(name, **fields):
    """Options of an operator, such as ``options("Reshape", newShape=[2, 3])``."""
    made = getattr(schema, f"{name}OptionsT")()
    vars(made).update(fields)
    return made


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


class TFLiteFile:
    """A TFLite file that is taken apart. What edits it, edits its main graph.

    Args:
        data: bytes of a ``.tflite`` file; buffers that lie behind the flatbuffer are taken in.

    Attributes:
        model: ``ModelT`` of LiteRT's schema.
        graph: the main graph, ``SubGraphT``.
    """

    def __init__(self, data):
        self.model = schema.ModelT.InitFromPackedBuf(bytes(data))
        for buffer in self.model.buffers:
            if buffer.offset > 1 and buffer.size:
                buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
        self.graph = self.model.subgraphs[0]

    def pack(self):
        """The bytes of the file; equal vectors (scales, zero points, shapes, weights) are written once."""
        size = sum(len(buffer.data) for buffer in self.model.buffers if buffer.data is not None)
        builder = _SharingBuilder(size + 4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def copy(self):
        """Another file of the same content."""
        return TFLiteFile(self.pack())

    def op(self, operator):
        """The name of an operator in the schema, such as ``"CONV_2D"``."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return _OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")

    def array(self, index):
        """The value of a constant tensor in its shape, or None for a computed one or a type that is not read here."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type not in _DTYPES:
            return None
        data, shape = np.asarray(data, np.uint8), () if tensor.shape is None else tuple(tensor.shape)
        if tensor.type == schema.TensorType.INT4:
            return _from_int4(data, int(np.prod(shape))).reshape(shape)
        return np.frombuffer(data.tobytes(), _DTYPES[tensor.type]).reshape(shape)

    def name(self, index):
        """The name of a tensor."""
        return self.graph.tensors[index].name.decode()

    def index(self, name):
        """The index of the tensor of that name."""
        return next(i for i, tensor in enumerate(self.graph.tensors) if tensor.name == name.encode())

    def readers(self, index, which=None):
        """The operators that take a tensor, at the input ``which`` or at any."""
        found = ((operator, indices(operator.inputs)) for operator in self.graph.operators)
        return [op for op, inputs in found if index in (inputs if which is None else inputs[which : which + 1])]

    def tensor(self, name, shape, kind=FLOAT32, quantization=None):
        """Append a computed tensor and return its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), np.asarray(shape, np.int32), kind
        tensor.quantization, tensor.buffer = quantization, 0
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name, values, kind=FLOAT32, quantization=None):
        """Append a constant tensor, in the type ``kind``, and return its index."""
        index = self.tensor(name, values.shape, kind, quantization)
        values = np.ascontiguousarray(values, _DTYPES[kind])
        data = _to_int4(values) if kind == schema.TensorType.INT4 else np.frombuffer(values.tobytes(), np.uint8)
        buffer = schema.BufferT()
        buffer.data = data
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def insert(self, place, op, inputs, outputs, its_options):
        """Insert an operator of the given name before the operator at ``place``."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, op)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
        operator.builtinOptions = its_options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(its_options).__name__[:-1])
        self.graph.operators.insert(place, operator)

    def replace_input(self, operator, which, index):
        """Let an operator read another tensor at one of its inputs."""
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[which] = index

    def make_names_unique(self):
        """Give every tensor a name of its own; inputs and outputs of the main graph keep theirs."""
        ends, taken = dict.fromkeys(indices((*self.graph.inputs, *self.graph.outputs))), set()
        for place, graph in enumerate(self.model.subgraphs):
            mark = b"#%d#" % place if place else b"#"
            for index in dict.fromkeys([*(() if place else ends), *range(len(graph.tensors))]):
                tensor = graph.tensors[index]
                name = tensor.name or b"tensor"
                tensor.name = name if name not in taken else b"%s%s%d" % (name, mark, index)
                taken.add(tensor.name)

    def order_inputs(self, names):
        """List the inputs in the order of ``names``, which are those of the signature."""
        places = {entry.name.decode(): entry.tensorIndex for entry in self.model.signatureDefs[0].inputs}
        self.graph.inputs = np.array([places[name] for name in names], np.int32)

    def strip(self, names=True):
        """Drop what no interpreter needs; the signature and the names of inputs and outputs stay.

        Dropped are description and metadata, names of inner tensors if ``names``, empty quantization tables, and every
        tensor, buffer and operator code that nothing refers to. Equal constants share a buffer.

        Returns:
            ``{name: index}`` of the tensors of the main graph, with the names from before and the indices from after.
        """
        model = self.model
        model.description = model.metadata = model.metadataBuffer = None
        named = [_strip_graph(graph, names) for graph in model.subgraphs]
        for signature in model.signatureDefs or []:
            places = named[signature.subgraphIndex][1]
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = places[entry.tensorIndex]
        operators = [operator for graph in model.subgraphs for operator in graph.operators]
        model.operatorCodes = _merged(operators, "opcodeIndex", model.operatorCodes, lambda c: (*vars(c).values(),), [])
        tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
        for buffer in model.buffers:
            buffer.data = None if buffer.data is None else np.asarray(buffer.data, np.uint8)
        empty = [schema.BufferT()]  # buffer 0 is the empty one
        model.buffers = _merged(tensors, "buffer", model.buffers, _content, empty)
        return named[0][0]


def _strip_graph(graph, drop_names):
    """Drop unused tensors and inner names; returns ``{name: new index}`` and ``{old index: new index}``."""
    graph.name = None
    ends = {*indices(graph.inputs), *indices(graph.outputs)}
    fields = ("inputs", "outputs", "intermediates")
    used = {index for op in graph.operators for field in fields for index in indices(getattr(op, field))}
    kept = sorted((used | ends) - {-1})
    places = {old: new for new, old in enumerate(kept)} | {-1: -1}
    for holder in (graph, *graph.operators):
        for field in fields:
            if (vector := getattr(holder, field, None)) is not None:
                setattr(holder, field, np.array([places[i] for i in indices(vector)], np.int32))
    names = {graph.tensors[old].name: places[old] for old in kept}
    for old in kept:
        tensor = graph.tensors[old]
        tensor.name = None if drop_names and old not in ends else tensor.name
        tensor.shape = None if tensor.shape is None else np.asarray(tensor.shape, np.int32)
        if tensor.quantization is not None and tensor.quantization.scale is None:
            tensor.quantization = None
    graph.tensors = [graph.tensors[old] for old in kept]
    return {name.decode(): place for name, place in names.items() if name}, places


def _merged(holders, field, entries, key_of, merged):
    """Let holders refer to one of the equal entries, by index; returns the entries that are left, after ``merged``."""
    places = {key_of(entry): place for place, entry in enumerate(merged)}
    for holder in holders:
        entry = entries[getattr(holder, field)]
        key = key_of(entry)
        if key not in places:
            places[key] = len(merged)
            merged.append(entry)
        setattr(holder, field, places[key])
    return merged


def _content(buffer):
    return None if buffer.data is None else buffer.data.tobytes()


def _to_int4(integers):
    """Bytes of integers in [-8, 7], two in each, the first in the low half; uint8 ``(ceil(N / 2),)``."""
    halves = integers.reshape(-1).astype(np.uint8) & 15
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
    return halves[0::2] | (halves[1::2] << 4)


def _from_int4(data, count):
    """The first ``count`` integers of `_to_int4`'s bytes, int8."""
    halves = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)
