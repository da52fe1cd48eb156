"""Steps whose losses or gradients are not finite: counted, and skipped."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.training import replicas
from slotcon_tf.types import Tensor, Variable

# What `SlotCon.nonfinite` counts: steps by what was not finite, and steps skipped.
NONFINITE = ("grouping_loss", "slot_contrastive_loss", "gradients", "skipped")


def judge(
    optimizer: keras.Optimizer,
    losses: dict[str, Tensor],
    gradients: list[Tensor],
    counts: Variable,
) -> Tensor:
    """Has the optimizer skip the coming update if a number of it is not finite.

    Args:
        optimizer: `slotcon_tf.LARS` or `SGD`, or one that scales the loss for it.
        losses: Has the first two of `NONFINITE`.
        gradients: Of this replica.
        counts: int64 (4,), by `NONFINITE`; it is counted up.

    Returns:
        1 if losses and gradients are finite on all replicas, else 0.

    Raises:
        ValueError: If the optimizer cannot skip a step.

    Example:
        >>> from slotcon_tf import SGD
        >>> optimizer, weight = SGD(0.1), keras.Variable([1.0])
        >>> optimizer.build([weight])
        >>> losses = {"grouping_loss": float("nan"), "slot_contrastive_loss": 0.5}
        >>> counts = keras.Variable([0, 0, 0, 0], dtype="int64")
        >>> float(judge(optimizer, losses, [tf.constant([1.0])], counts))
        0.0
        >>> counts.numpy().tolist()
        [1, 0, 0, 1]
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(inner, "gate"):
        raise ValueError(
            "skip_nonfinite needs an optimizer that can skip a step: "
            f"slotcon_tf.LARS or slotcon_tf.SGD. Received: {inner.name}."
        )
    judged = {name: losses[name] for name in NONFINITE[:2]}
    if inner is optimizer:
        judged["gradients"] = tf.add_n([tf.nn.l2_loss(g) for g in gradients])
    else:
        # Scaled ones may overflow: the loss scale deals with those.
        judged["gradients"] = ops.zeros(())
    bad = [ops.cast(~ops.isfinite(judged[n]), "float32") for n in NONFINITE[:-1]]
    bad = ops.cast(replicas.sum_over_replicas(ops.stack(bad)) > 0, "int64")  # (3,)
    skipped = ops.max(bad, keepdims=True)
    counts.assign(counts + ops.concatenate([bad, skipped]))
    good = ops.cast(skipped[0] == 0, "float32")
    inner.gated = True
    inner.gate.assign(good)
    return good


def agree_on_overflow(
    optimizer: keras.Optimizer, gradients: list[Tensor]
) -> list[Tensor]:
    """Makes all gradients NaN where those of any replica are not finite.

    For Keras's LossScaleOptimizer, which takes one replica's word for all of them, and
    sums the gradients after it; gradients for others are returned as they are.

    Example:
        >>> from slotcon_tf import SGD
        >>> agree_on_overflow(SGD(0.1), [1.0])
        [1.0]
    """
    if replicas.num_replicas() == 1 or not hasattr(optimizer, "dynamic_scale"):
        return gradients
    total = tf.add_n([tf.nn.l2_loss(ops.cast(g, "float32")) for g in gradients])
    bad = ops.cast(~ops.isfinite(total), "float32")
    bad = replicas.sum_over_replicas(bad) > 0
    return [ops.where(bad, ops.full_like(g, float("nan")), g) for g in gradients]
