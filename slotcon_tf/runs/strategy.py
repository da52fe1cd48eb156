"""From a flag to a tf.distribute strategy, and who is who under it."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from slotcon_tf.runs.cluster import num_workers

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


def build_strategy(name: str = "auto", tpu: str = "") -> tf.distribute.Strategy:
    """The strategy of a run; call it before anything else that asks for devices.

    Args:
        name: "auto" takes multi_worker where TF_CONFIG names several workers, a TPU
            where `tpu` is given, MirroredStrategy where several GPUs are visible, and
            one device otherwise; the other names insist. "mirrored" without a GPU
            takes every logical CPU.
        tpu: TPU name or address, for "tpu"; "local" on a TPU VM.

    Returns:
        A tf.distribute.Strategy.

    Raises:
        ValueError: If the name is unknown, or what it needs is missing.

    Example:
        >>> build_strategy("one_device").num_replicas_in_sync
        1
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}. "
            f"Received: strategy={name}."
        )
    # Before any look at logical devices: collectives are set up at the very start.
    workers = num_workers()
    if name == "multi_worker" or (name == "auto" and workers > 1):
        if workers < 2:
            raise ValueError(
                "strategy=multi_worker needs TF_CONFIG with two workers or more. "
                f"Received: TF_CONFIG={os.environ.get('TF_CONFIG', '')!r}. Set it to "
                '{"cluster": {"worker": ["HOST:PORT", ...]}, '
                '"task": {"type": "worker", "index": 0}} on every host.'
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu" or (name == "auto" and tpu):
        if not tpu:
            raise ValueError(
                "strategy=tpu needs the TPU's name or address. Received: none. "
                "Set `tpu`, to 'local' on a TPU VM."
            )
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    # The default strategy: no scope, no copies, and XLA may be used.
    return tf.distribute.get_strategy()


def spans_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together.

    Example:
        >>> spans_hosts(tf.distribute.get_strategy())
        False
    """
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def any_worker(strategy: tf.distribute.Strategy) -> Callable[[bool], bool]:
    """Function that tells each worker whether any of them says yes.

    All workers must call it at the same places, as they do steps.

    Returns:
        Function of a bool that returns a bool.

    Example:
        >>> any_worker(tf.distribute.get_strategy())(True)
        True
    """
    if not spans_hosts(strategy):
        return bool

    @tf.function
    def agree(value):
        def add(own):
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(own))

        return strategy.run(add, args=(value,))

    def ask(value):
        found = agree(tf.constant(float(value)))
        return bool(strategy.experimental_local_results(found)[0].numpy() > 0)

    return ask
