"""The network that a self-compressing model was made of."""

import hashlib

__all__ = ["Reference"]


class Reference:
    """Keeps the network that was handed to `scc_tf.self_compress`, not a copy, while its weights are what they were.

    A plain object, in which Keras looks for nothing: no second network gets into weights and files.
    """

    def __init__(self, network):
        self._network, self._weights = network, _digest(network)

    @property
    def network(self):
        """The network; None if it was trained or otherwise changed since."""
        return self._network if _digest(self._network) == self._weights else None


def _digest(network):
    digest = hashlib.blake2b()
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    return digest.digest()
