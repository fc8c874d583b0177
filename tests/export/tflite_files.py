"""Small networks to export, and two ways to look into the file that do not use the library."""

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python import schema_py_generated as schema

from scc_tf import layers
from scc_tf.layers import SelfCompressing

K = keras.layers
FILTER_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
WITHOUT_DELEGATE = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def self_compressing_layers(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, SelfCompressing)]


def randomize(model, low=2.0, high=7.0, seed=0):
    """Formats, biases and normalizations as after training: each channel its own, gammas of both signs."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for fmt in getattr(layer, "formats", ()):
            bits = rng.uniform(low, high, fmt.channels)
            fmt.bit_depth.assign(bits)
            fmt.exponent.assign(np.array(fmt.range_exponents(getattr(layer, fmt.name), bits)) + rng.uniform(0, 0.5))
        if isinstance(layer, K.BatchNormalization):
            for weight in layer.weights:
                values = rng.uniform(0.3, 2.0, weight.shape)
                signed = weight.name in ("gamma", "beta", "moving_mean")
                weight.assign(values * rng.choice([-1, 1], weight.shape) if signed else values)
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape) * 0.2)
    return model


def sequential(shape, *stack, **formats):
    return randomize(keras.Sequential([keras.Input(shape), *stack]), **formats)


def conv_norm():
    return sequential((8, 8, 3), layers.Conv2D(5, 3, name="conv"), K.BatchNormalization(), K.ReLU())


def conv_relu_norm():
    norm = K.BatchNormalization(scale=False)
    conv = layers.Conv2D(5, 3, activation="relu", name="conv")
    return sequential((8, 8, 3), conv, norm, K.MaxPooling2D(), K.Flatten(), layers.Dense(3, name="head"))


def depthwise():
    return sequential((8, 8, 3), layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw"), K.BatchNormalization())


def separable():
    return sequential((8, 8, 3), layers.SeparableConv2D(4, 3, name="sep"), K.BatchNormalization(), K.ReLU(6.0))


def transposed():
    return sequential((5, 5, 3), layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="up"), K.ReLU())


def conv1d():
    conv = layers.Conv1D(4, 3, padding="causal", dilation_rate=2, name="conv")
    return sequential((12, 3), conv, K.BatchNormalization(), K.ReLU())


def grouped_dilated():
    return sequential(
        (12, 12, 4), layers.Conv2D(6, 3, groups=2, name="grouped"), layers.Conv2D(4, 3, dilation_rate=2, name="dilated")
    )


def dense_norm_dense():
    first = layers.Dense(12, activation="relu", name="first")
    return sequential((8,), first, K.BatchNormalization(), layers.Dense(4, name="second"))


def einsum():
    return sequential((5, 8, 2), layers.EinsumDense("abcd,cdef->abfe", output_shape=(None, 3, 4), name="einsum"))


def nested_shared():
    shared = layers.Dense(6, activation="relu", name="shared")
    inner = keras.Sequential([keras.Input((6,)), shared, layers.Dense(6, name="inner")], name="nested")
    x = keras.Input((6,))
    return randomize(keras.Model(x, layers.Dense(2, name="head")(inner(shared(x)))))


def shared_two_norms():
    x, conv = keras.Input((6, 6, 3)), layers.Conv2D(3, 3, padding="same", name="shared")
    return randomize(keras.Model(x, K.BatchNormalization()(conv(K.BatchNormalization()(conv(x))))))


def residual():
    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    y = K.ReLU()(K.BatchNormalization()(y))
    y = K.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="conv2")(y))
    y = K.GlobalAveragePooling2D()(K.ReLU()(K.Add()([x, y])))
    return randomize(keras.Model(x, layers.Dense(3, activation="softmax", name="head")(y)))


def dead_channels():
    model = conv_relu_norm()
    for name in ("conv", "head"):
        layer = model.get_layer(name)
        layer.bit_depth.assign(np.where(np.arange(layer.bit_depth.shape[0]) == 1, 0, layer.bit_depth))
    return model


NETS = (
    *(conv_norm, conv_relu_norm, depthwise, separable, transposed, conv1d, grouped_dilated, dense_norm_dense, einsum),
    *(nested_shared, shared_two_norms, residual, dead_channels),
)


def inputs(model, count=8, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *model.inputs[0].shape[1:])).astype(np.float32)


def run(path, samples, **options):
    """Outputs of the file for inputs ``(N, ...)``, one at a time."""
    interpreter = Interpreter(model_path=str(path), num_threads=1, **options)
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for sample in samples:
        interpreter.set_tensor(entry["index"], sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(end["index"])[0])
    return np.array(outputs)


def relative_error(path, model, count=8, **options):
    """Largest difference from Keras, in units of the range of its outputs."""
    samples = inputs(model, count)
    expected = np.array(model(samples))
    return np.abs(run(path, samples, **options) - expected).max() / np.ptp(expected)


def filters_by_hand(path):
    """From the bytes of the file: ``{tensor index: (integers, scales, axis)}`` of the quantized filters."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph, found = model.subgraphs[0], {}
    unpacked = {op.outputs[0]: op.inputs[0] for op in graph.operators if name_of(model, op) == "DEQUANTIZE"}
    for operator in graph.operators:
        if name_of(model, operator) not in FILTER_OPS:
            continue
        index = unpacked.get(operator.inputs[1], operator.inputs[1])
        tensor = graph.tensors[index]
        data, quantization = model.buffers[tensor.buffer].data, tensor.quantization
        if tensor.type == schema.TensorType.INT4:
            halves = [half - 16 if half > 7 else half for byte in data for half in (int(byte) & 15, int(byte) >> 4)]
            integers = np.array(halves[: int(np.prod(tensor.shape))])
        elif tensor.type == schema.TensorType.INT8:
            integers = data.view(np.int8)
        else:
            continue
        assert not quantization.zeroPoint.any()
        found[index] = (integers.reshape(tensor.shape), quantization.scale, quantization.quantizedDimension)
    return found


def stored_matrices(path):
    """Integer matrices ``(C, n)`` and scales ``(C,)``, on which the interpreter and the bytes agree."""
    interpreter = Interpreter(model_path=str(path), **WITHOUT_DELEGATE)
    interpreter.allocate_tensors()
    details = {detail["index"]: detail["quantization_parameters"] for detail in interpreter.get_tensor_details()}
    matrices = []
    for index, (integers, scales, axis) in filters_by_hand(path).items():
        np.testing.assert_array_equal(interpreter.get_tensor(index), integers)
        np.testing.assert_array_equal(details[index]["scales"], scales)
        assert not details[index]["zero_points"].any()
        assert details[index]["quantized_dimension"] == axis
        matrices.append((np.moveaxis(integers, axis, 0).reshape(len(scales), -1), scales))
    return matrices


def code_matrices(layer):
    """The codes of a layer's kernels as matrices ``(C, n)``, for layers whose axes keep their order."""
    for fmt in layer.formats:
        codes = np.array(layer.codes(fmt.name))
        yield np.moveaxis(codes, fmt.channel_axes, range(len(fmt.channel_axes))).reshape(fmt.channels, fmt.fan_in)


def same_but_for_signs(stored, codes):
    """Whether integers are the codes, each channel as it is or negated."""
    if stored.shape != codes.shape:
        return False
    stored = stored.astype(int)
    return bool(((stored == codes).all(axis=1) | (stored == -codes).all(axis=1)).all())


def name_of(model, operator):
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    return names[model.operatorCodes[operator.opcodeIndex].builtinCode]


def operators(path):
    """Pairs ``(name, version)`` of the operators, in order."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    return [(name_of(model, op), model.operatorCodes[op.opcodeIndex].version) for op in model.subgraphs[0].operators]
