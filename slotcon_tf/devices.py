"""What suits the device at hand."""

import tensorflow as tf

# Not public; the public way, asking `tf.function`, does not exist.
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from slotcon_tf import processor

_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_CAPABILITY = (8, 0)  # NVIDIA Ampere; older cards emulate it


def best_precision() -> str:
    """The faster dtype policy here: "mixed_bfloat16" or "float32".

    bfloat16 is taken where the device multiplies it in hardware: TPUs, GPUs of compute
    capability 8.0 and above (all visible ones), and x86 processors with AVX512_BF16 or
    AMX, as Linux reports them, through oneDNN.
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


def compiled_by_xla() -> bool:
    """Whether the code being traced goes to XLA: `jit_compile=True`, or a TPU."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def dynamic_shapes_pay() -> bool:
    """Whether leaving out rows that do not count is worth a size known at run time.

    It is on CPUs, where every row costs time. XLA needs static shapes, and a GPU would
    wait for the host to learn the size.
    """
    return runs_on_cpu()


def runs_on_cpu() -> bool:
    """Whether TensorFlow's own kernels for CPUs run the code being traced."""
    return not compiled_by_xla() and not tf.config.list_physical_devices("GPU")
