"""What suits the device at hand: its precision, and the kernels that run on it."""

from __future__ import annotations

import tensorflow as tf
from keras import ops

# Not public; the public way, asking `tf.function`, does not exist.
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from slotcon_tf import processor
from slotcon_tf.types import Tensor

_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_CAPABILITY = (8, 0)  # NVIDIA Ampere; older cards emulate it
HALF_DTYPES = ("float16", "bfloat16")


def best_precision() -> str:
    """The faster dtype policy here: "mixed_bfloat16" or "float32".

    bfloat16 is taken where the device multiplies it in hardware: TPUs, GPUs of compute
    capability 8.0 and above (all visible ones), and x86 processors with AVX512_BF16 or
    AMX, as Linux reports them, through oneDNN.

    Example:
        >>> best_precision() in ("float32", "mixed_bfloat16")
        True
    """
    if tf.config.list_physical_devices("TPU"):
        return "mixed_bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = map(tf.config.experimental.get_device_details, gpus)
        able = all(
            d.get("compute_capability", (0, 0)) >= _BFLOAT16_CAPABILITY for d in details
        )
    else:
        has = _BFLOAT16_FEATURES & processor.features()
        able = bool(has) and processor.onednn_is_on()
    return "mixed_bfloat16" if able else "float32"


def at_least_float32(x: Tensor) -> Tensor:
    """Casts float16 and bfloat16 to float32; leaves float32 and float64 alone.

    The one rule of mixed precision: sensitive maths runs in float32 or better.

    Example:
        >>> at_least_float32(tf.zeros(3, "bfloat16")).dtype
        tf.float32
    """
    if str(getattr(x.dtype, "name", x.dtype)) in HALF_DTYPES:
        return ops.cast(x, "float32")
    return x


def compiled_by_xla() -> bool:
    """Whether the code being traced goes to XLA: `jit_compile=True`, or a TPU.

    Example:
        >>> compiled_by_xla()
        False
    """
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def dynamic_shapes_pay() -> bool:
    """Whether leaving out rows that do not count is worth a size known at run time.

    It is on CPUs, where every row costs time. XLA needs static shapes, and a GPU would
    wait for the host to learn the size.

    Example:
        >>> tf.function(dynamic_shapes_pay, jit_compile=True)().numpy()
        np.False_
    """
    return runs_on_cpu()


def runs_on_cpu() -> bool:
    """Whether TensorFlow's own kernels for CPUs run the code being traced.

    Example:
        >>> runs_on_cpu() == (not tf.config.list_physical_devices("GPU"))
        True
    """
    return not compiled_by_xla() and not tf.config.list_physical_devices("GPU")
