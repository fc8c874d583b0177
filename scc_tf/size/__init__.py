"""Q: how big a self-compressing model is, differentiable, for training."""

from scc_tf.size.bits import SIZE_FORMS, UNITS, SizeTerm, bits_table, compressing_kernels
from scc_tf.size.entropy import RateTerm

__all__ = ["SIZE_FORMS", "UNITS", "RateTerm", "SizeTerm", "bits_table", "compressing_kernels"]
