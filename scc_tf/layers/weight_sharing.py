"""Weight-sharing layers: the weights of a kernel take few values, the centroids, which are trained.

Such a layer takes every argument of the stock layer and ``clusters``. It has no float kernel: ``layer.kernel`` is a
`SharedKernel`, a table of trainable centroids and, for every weight, the index of its own. Pruned weights have index 0:
they are exactly 0, and stay so whatever the optimizer does.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from scc_tf.keras_private import all_layers
from scc_tf.layers.compressed import CompressedKernels
from scc_tf.layers.registry import KernelLayout

__all__ = ["SharedKernel", "WeightSharing", "kernel_constraints", "look_up", "weight_sharing_layers"]


@tf.custom_gradient
def look_up(table, indices):
    """The entries of a table that indices stand for.

    The gradient of an entry is the sum of the gradients of the weights that share it,
    ``dL/dC_k = sum_ij dL/dW_ij [I_ij = k]``. It is written out here as one dense vector: the gradient of a gather is
    one row per weight, which took three to eight times as long at 784 x 300 and 800 x 500, with XLA and without.

    Args:
        table: float32 tensor ``(k,)``.
        indices: int32 tensor of any shape, from 0 to ``k - 1``.

    Returns:
        float32 in the shape of ``indices``.

    Source: Han, Mao & Dally 2016, section 3.3, eq. 3 (arXiv 1510.00149).

    Example:
        >>> look_up(tf.constant([0.0, -1.0, 2.0]), tf.constant([[0, 1], [2, 1]])).numpy().tolist()
        [[0.0, -1.0], [2.0, -1.0]]
    """

    def gradient(upstream):
        rows = tf.reshape(upstream, [-1]), tf.reshape(indices, [-1])
        return tf.math.unsorted_segment_sum(*rows, num_segments=table.shape[0]), None

    return tf.gather(table, indices), gradient


class SharedKernel(KernelLayout):
    """One kernel of a weight-sharing layer: its centroids and which weight has which.

    NumPy, TensorFlow and Keras take it for the array of its weights.

    Attributes:
        centroids: float32 trainable variable ``(k,)``.
        indices: int32 variable in the kernel's shape, not trainable: 0 for a pruned weight, ``i`` from 1 for
            ``centroids[i - 1]``.
        regularizer: of the kernel, or None. It acts on the weights, so that a centroid is charged for all that share
            it.
    """

    dtype = "float32"

    def __init__(self, layer, spec, shape, clusters, initializer, regularizer=None):
        super().__init__(layer, spec, shape)
        self.regularizer = keras.regularizers.get(regularizer)

        @functools.cache  # both variables come from one draw
        def start():
            with tf.init_scope():  # Keras may ask first while it traces a call: its tensors do not last
                return _linear_start(initializer(self.shape, dtype="float32"), clusters)

        self.centroids = layer.add_weight(
            name=f"{self.prefix}centroids",
            shape=(clusters,),
            initializer=lambda shape, dtype: start()[0],
            regularizer=None if self.regularizer is None else lambda centroids: self.regularizer(self.value()),
            dtype="float32",
            autocast=False,
        )
        self.indices = layer.add_weight(
            name=f"{self.prefix}indices",
            shape=self.shape,
            initializer=lambda shape, dtype: start()[1],
            dtype="int32",
            autocast=False,
            trainable=False,
        )

    def value(self):
        """The weights, float32 in the kernel's shape; gradients reach the centroids."""
        table = tf.concat([[0.0], tf.convert_to_tensor(self.centroids)], axis=0)
        return look_up(table, tf.convert_to_tensor(self.indices))

    def __array__(self, dtype=None, copy=None):
        del copy  # always a new array
        return np.asarray(ops.convert_to_numpy(self.value()), dtype)

    def __tf_tensor__(self, dtype=None, name=None):
        del name
        return ops.cast(self.value(), dtype or self.dtype)


def _linear_start(kernel, clusters):
    """Centroids ``(k,)``, evenly spaced from the smallest weight to the largest, and the nearest's index, from 1."""
    low, high = ops.min(kernel), ops.max(kernel)
    step = (high - low) / max(clusters - 1, 1)
    nearest = ops.round((kernel - low) / ops.where(step > 0, step, 1.0))
    return ops.linspace(low, high, clusters), ops.cast(ops.clip(nearest, 0, clusters - 1), "int32") + 1


def kernel_constraints(layer):
    """The names of the constraints that a layer puts on its kernels, such as ``["kernel_constraint"]``."""
    found = {name: value for name, value in vars(layer).items() if name.endswith("_constraint")}
    return [name for name, value in found.items() if value is not None and name != "bias_constraint"]


class WeightSharing(CompressedKernels):
    """Mixin that gives the kernels of a Keras layer shared weights. List it before the stock class.

    A fresh layer shares the weights that its initializer draws: the centroids are evenly spaced from the smallest to
    the largest, each weight gets the nearest. `scc_tf.share_weights` makes layers of trained weights. A kernel's
    regularizer acts on the weights that are shared; a constraint on a kernel is refused, since no centroid can obey
    what it asks of single weights.

    Args:
        clusters: number of centroids of a kernel, int from 1; a sequence with one number per kernel for layers with
            several, in the order of ``kernel_names``.
        *args: as the stock layer takes them.
        **kwargs: as the stock layer takes them.

    Attributes:
        clusters: tuple of int, one per kernel.
        shared_kernels: tuple of `SharedKernel`, one per kernel, once the layer is built.

    Raises:
        ValueError: if ``clusters`` is out of range or of another length, or a kernel has a constraint.

    Source: Han, Mao & Dally 2016, "Deep Compression", section 3 (arXiv 1510.00149).
    """

    def __init__(self, *args, clusters=16, **kwargs):
        super().__init__(*args, **kwargs)
        counts = tuple(clusters) if isinstance(clusters, list | tuple) else (clusters,) * len(self.kernel_names)
        whole = all(isinstance(count, int) and count >= 1 for count in counts)
        if not whole or len(counts) != len(self.kernel_names):
            raise ValueError(
                f"Expected clusters to be an int from 1, or one for each of {self.kernel_names}. "
                f"Received: clusters={clusters!r}"
            )
        if constraints := kernel_constraints(self):
            raise ValueError(
                f"Expected no constraint on kernels whose weights are shared. Received: {', '.join(constraints)}"
            )
        self.clusters = counts
        self.shared_kernels = ()

    def add_weight(self, *args, name=None, **kwargs):
        """Create a variable; in place of a kernel, a `SharedKernel`."""
        if name not in self.kernel_names:
            return super().add_weight(*args, name=name, **kwargs)
        number = self.kernel_names.index(name)
        settings = kwargs["shape"], self.clusters[number], kwargs["initializer"], kwargs.get("regularizer")
        shared = SharedKernel(self, self.entry.kernels[number], *settings)
        self.shared_kernels = (*self.shared_kernels, shared)
        return shared

    def shared_kernel(self, kernel_name="kernel"):
        """The `SharedKernel` of a kernel; a ValueError if the layer is not built or has no such kernel."""
        return self._of_kernel(self.shared_kernels, kernel_name)

    def quantized(self, kernel_name="kernel"):
        """The kernel's weights, float32 in its shape: what the layer multiplies by."""
        return self.shared_kernel(kernel_name).value()

    def share(self, centroids, indices, kernel_name="kernel"):
        """Set the weights of a kernel.

        Args:
            centroids: float array ``(k,)``, finite.
            indices: int array in the kernel's shape: 0 prunes a weight, ``i`` from 1 to ``k`` gives it
                ``centroids[i - 1]``.
            kernel_name: which kernel.

        Raises:
            ValueError: if the layer is not built or has no such kernel, if a shape differs, an index is out of range
                or a centroid is not finite.

        Example:
            >>> import scc_tf
            >>> layer = scc_tf.layers.WeightSharingDense(2, clusters=2)
            >>> layer.build((None, 2))
            >>> layer.share([-1.0, 0.5], [[1, 0], [2, 2]])
            >>> np.asarray(layer.kernel).tolist()
            [[-1.0, 0.0], [0.5, 0.5]]
        """
        shared = self.shared_kernel(kernel_name)
        centroids, indices = np.asarray(centroids, np.float32), np.asarray(indices)
        (clusters,) = shared.centroids.shape
        if centroids.shape != (clusters,) or not np.isfinite(centroids).all():
            raise ValueError(f"Expected {clusters} finite centroids. Received: {centroids}")
        if indices.shape != shared.shape or indices.dtype.kind not in "iu":
            raise ValueError(
                f"Expected integer indices of shape {shared.shape}. "
                f"Received: shape={indices.shape}, dtype={indices.dtype}"
            )
        if indices.min() < 0 or indices.max() > clusters:
            raise ValueError(
                f"Expected indices from 0 to {clusters}. Received: from {indices.min()} to {indices.max()}"
            )
        shared.centroids.assign(centroids)
        shared.indices.assign(indices.astype(np.int32))

    def get_config(self):
        """The stock configuration with ``clusters``: an int where all kernels have as many."""
        config = super().get_config()
        config["clusters"] = self.clusters[0] if len(set(self.clusters)) == 1 else list(self.clusters)
        return config


def weight_sharing_layers(model):
    """The weight-sharing layers of a model, nested ones included, each once."""
    return [layer for layer in all_layers(model) if isinstance(layer, WeightSharing)]
