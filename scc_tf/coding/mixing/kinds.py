"""The kinds of numbers in a mixed stream."""

__all__ = ["BYTE", "DROPPED", "EXPONENT", "FIXED", "FLAG", "FRACTION", "SIGN", "STEP"]

FLAG, STEP, FRACTION, FIXED, DROPPED, SIGN, EXPONENT, BYTE = range(8)
