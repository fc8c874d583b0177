"""Small networks with state that is no variable, or with constants in their graph; inputs come from `probe_inputs`."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

_RNG = np.random.default_rng(0)
NUMBERS = _RNG.normal(5.0, 3.0, (32, 6)).astype("float32")
WORDS = np.array([["red", "blue"], ["blue", "grey"]])


@keras.saving.register_keras_serializable(package="stateful_nets")
class Table(layers.Layer):
    """Adds a table that it keeps in an attribute, and stores by a name of its own."""

    table = 0.0

    def call(self, inputs):
        return inputs + self.table

    def save_own_variables(self, store):
        store["table"] = self.table

    def load_own_variables(self, store):
        self.table = np.array(store["table"])


@keras.saving.register_keras_serializable(package="stateful_nets")
class Factor(layers.Layer):
    """Multiplies by a number that it keeps in a file of bytes."""

    factor = 1.0

    def call(self, inputs):
        return self.factor * inputs

    def save_assets(self, dir_path):
        tf.io.gfile.makedirs(f"{dir_path}/deep")
        with tf.io.gfile.GFile(f"{dir_path}/deep/factor.bin", "wb") as file:
            file.write(np.float64(self.factor).tobytes() + b"\xff")

    def load_assets(self, dir_path):
        with tf.io.gfile.GFile(f"{dir_path}/deep/factor.bin", "rb") as file:
            self.factor = float(np.frombuffer(file.read()[:8])[0])


@keras.saving.register_keras_serializable(package="stateful_nets")
class Offset(layers.Layer):
    """Adds a constant that it makes of a variable."""

    def build(self, input_shape):
        del input_shape
        self.variable = self.add_weight(name="offset", shape=(), trainable=False)
        self.finalize_state()

    def finalize_state(self):
        self.constant = ops.convert_to_tensor(self.variable)

    def call(self, inputs):
        return inputs + self.constant


@keras.saving.register_keras_serializable(package="stateful_nets")
class Several(layers.Layer):
    """Multiplies by the sum of so many weights as its build configuration says."""

    count = 1

    def build(self, input_shape):
        del input_shape
        self.factors = self.add_weight(name="factors", shape=(self.count,), initializer="ones")

    def get_build_config(self):
        return {"count": self.count}

    def build_from_config(self, config):
        self.count = config["count"]
        self.build(None)

    def call(self, inputs):
        return inputs * ops.sum(self.factors)


def adapted(layer, data):
    layer.adapt(data)
    return layer


def with_attributes(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def _offset():
    layer = Offset()
    layer.build(None)
    layer.variable.assign(3.0)
    layer.finalize_state()
    return layer


def _chain(*inner, shape=(6,), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inner, layers.Dense(3)])


def _graph(function, shape=(6,), dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layers.Dense(3)(function(inputs)))


def _normalization(**settings):
    return adapted(layers.Normalization(**settings), NUMBERS)


def _lookup(layer, shape=(2,)):
    return _chain(adapted(layer, WORDS), shape=shape, dtype="string")


def _nested_twice():
    inner = keras.Sequential([keras.Input((6,)), _normalization(), layers.Dense(6)], name="inner")
    return _chain(keras.Sequential([keras.Input((6,)), inner], name="outer"))


STATES = {
    "normalization": lambda: _chain(_normalization()),
    "inverted": lambda: _chain(_normalization(invert=True)),
    "of given numbers": lambda: _chain(layers.Normalization(mean=NUMBERS[0], variance=np.ones(6))),
    "of all axes": lambda: _chain(_normalization(axis=None)),
    "nested": _nested_twice,
    "bins": lambda: _chain(adapted(layers.Discretization(num_bins=4), NUMBERS), layers.CategoryEncoding(4)),
    "words": lambda: _lookup(layers.StringLookup(output_mode="multi_hot")),
    "words by rarity": lambda: _lookup(layers.StringLookup(output_mode="tf_idf")),
    "integers": lambda: _chain(
        adapted(layers.IntegerLookup(), np.array([7, 1000])), layers.Embedding(3, 2), shape=(2,), dtype="int64"
    ),
    "texts": lambda: _chain(
        adapted(layers.TextVectorization(output_mode="tf_idf"), WORDS[:, 0]), shape=(1,), dtype="string"
    ),
    "array in settings": lambda: _chain(layers.Rescaling(NUMBERS[0], offset=NUMBERS[1])),
    "stored by name": lambda: _chain(with_attributes(Table(), table=NUMBERS[0])),
    "assets": lambda: _chain(with_attributes(Factor(), factor=2.5)),
    "constant of a variable": lambda: _chain(_offset()),
    "built by configuration": lambda: _chain(with_attributes(Several(), count=3)),
    "quantized": lambda: _quantized(),
}
CONSTANTS = {
    "tensor": lambda: _graph(lambda x: x + tf.constant(NUMBERS[0])),
    "array": lambda: _graph(lambda x: x * NUMBERS[0]),
    "scalar": lambda: _graph(lambda x: x * tf.constant(3.0)),
    "integers": lambda: _graph(lambda x: ops.take(x, np.array([3, 1]), axis=1)),
    "table": lambda: _graph(lambda x: ops.reshape(ops.take(NUMBERS[:5], x, axis=0), (-1, 12)), (2,), "int32"),
    "bools by keyword": lambda: _graph(lambda x: ops.where(np.arange(6) > 2, x1=x, x2=0.0)),
    "mask of a layer": lambda: _graph(
        lambda x: layers.MultiHeadAttention(1, 2)(x, x, attention_mask=np.tril(np.ones((1, 4, 4), bool))), (4, 6)
    ),
}


def _quantized():
    model = _chain(layers.Dense(4, name="quantized"))
    model.get_layer("quantized").quantize("int8")
    return model
