"""The one rule of mixed precision: sensitive maths runs in float32 or better."""

from keras import ops

_LOW_PRECISION = ("float16", "bfloat16")


def at_least_float32(x):
    """Casts float16 and bfloat16 to float32; leaves float32 and float64 alone."""
    if str(getattr(x.dtype, "name", x.dtype)) in _LOW_PRECISION:
        return ops.cast(x, "float32")
    return x
