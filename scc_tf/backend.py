"""TensorFlow must be Keras's backend: the first import of the package says so where it is not."""

import os

try:
    import keras

    _backend = keras.config.backend()
except ModuleNotFoundError as error:
    _backend = os.environ.get("KERAS_BACKEND", error.name)  # Keras imports its backend, which may not be there
if _backend != "tensorflow":
    raise ImportError(
        f"Expected Keras to run on TensorFlow: set KERAS_BACKEND=tensorflow (or ~/.keras/keras.json) before anything "
        f"imports keras. Received: {_backend}"
    )
