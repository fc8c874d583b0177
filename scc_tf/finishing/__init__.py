"""From a trained model to the one that goes into a file: cut, rounded, and of a size where one is asked for."""

from scc_tf.finishing.finish import FinishReport, finish, finish_to_bytes

__all__ = ["FinishReport", "finish", "finish_to_bytes"]
