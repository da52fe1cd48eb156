"""From a flag to a tf.distribute strategy."""

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "tpu")


def build_strategy(name: str = "auto", tpu: str = "") -> tf.distribute.Strategy:
    """The strategy of a run.

    Args:
        name: "auto" takes MirroredStrategy where several GPUs are visible, a TPU where
            `tpu` is given, and one device otherwise; "one_device", "mirrored" and
            "tpu" insist. "mirrored" without a GPU takes every logical CPU.
        tpu: TPU name or address, for "tpu".

    Returns:
        A tf.distribute.Strategy.

    Raises:
        ValueError: If the name is unknown.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        name = "tpu" if tpu else "mirrored" if len(gpus) > 1 else "one_device"
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if name == "mirrored":
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    if name == "one_device":
        # The default strategy: no scope, no copies, and XLA may be used.
        return tf.distribute.get_strategy()
    raise ValueError(
        f"strategy must be one of {', '.join(STRATEGIES)}. Received: {name!r}."
    )
