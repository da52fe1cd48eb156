"""What suits the device at hand."""

import tensorflow as tf

# Not public; the public way, asking `tf.function`, does not exist.
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def compiled_by_xla() -> bool:
    """Whether the code being traced goes to XLA: `jit_compile=True`, or a TPU."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def dynamic_shapes_pay() -> bool:
    """Whether leaving out rows that do not count is worth a size known at run time.

    It is on CPUs, where every row costs time. XLA needs static shapes, and a GPU would
    wait for the host to learn the size.
    """
    return not compiled_by_xla() and not tf.config.list_physical_devices("GPU")
