"""What a step reports: losses, and the health of groups and features."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.method.objective import active_slots, l2_normalize
from slotcon_tf.training import replicas
from slotcon_tf.types import Tensor

LOSSES = ("loss", "grouping_loss", "slot_contrastive_loss")
# What `fit` reports, in this order.
METRICS = (
    *LOSSES,
    "prototypes_used",
    "active_slots",
    "assignment_entropy",
    "agreement",
    "feature_std",
)
# What every step diagnoses besides its losses.
_DIAGNOSED = ("agreement", "feature_std", "assignments", "active")


def diagnose(
    maps: Tensor, teacher_logits: Tensor, temperature: float
) -> dict[str, Tensor]:
    """What a replica says of the health of its groups and features.

    Args:
        maps: The encoder's (B, H, W, C) of view a.
        teacher_logits: Assignment logits (2, B, H, W, K) of both views.
        temperature: Of the assignments.

    Returns:
        Dict of `feature_std`, a scalar, `assignments` (K,), the mean assignment, and
        `active` bool (2, B, K).

    Example:
        >>> found = diagnose(ops.ones((3, 2, 2, 4)), ops.ones((2, 3, 2, 2, 5)), 0.07)
        >>> {name: tuple(value.shape) for name, value in found.items()}
        {'feature_std': (), 'assignments': (5,), 'active': (2, 3, 5)}
    """
    assignments = ops.softmax(teacher_logits / temperature, axis=-1)
    return {
        "feature_std": feature_std(maps),
        "assignments": ops.mean(assignments, axis=(0, 1, 2, 3)),
        "active": ops.stack([active_slots(teacher_logits[v]) for v in (0, 1)]),
    }


def scalars_of(diagnostics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Diagnostics whose added entries are scalars of Keras's floating dtype.

    Args:
        diagnostics: Dict of `global_metrics`, with scalars of a subclass among it.

    Raises:
        ValueError: If one of the model's own is missing, or an added one is no scalar.

    Example:
        >>> own = dict.fromkeys([*LOSSES, *_DIAGNOSED], 0.0)
        >>> scalars_of({**own, "mine": 1})["mine"].dtype
        tf.float32
    """
    missing = [n for n in (*LOSSES, *_DIAGNOSED) if n not in diagnostics]
    if missing:
        raise ValueError(
            "compute_losses must return the model's own diagnostics with those of a "
            f"subclass. Received: no {', '.join(missing)}. Add to the dict that "
            "super().compute_losses returns."
        )
    found = dict(diagnostics)
    for name, value in diagnostics.items():
        if name in (*LOSSES, *_DIAGNOSED):
            continue
        value = tf.convert_to_tensor(value)
        if value.shape.rank != 0:
            raise ValueError(
                "Diagnostics of a subclass must be scalars. "
                f"Received: {name} of shape {value.shape}. Take its mean."
            )
        found[name] = tf.cast(value, keras.config.floatx())
    return found


def feature_std(maps: Tensor) -> Tensor:
    """Spread of pooled, normalised features: 1 isotropic, 0 collapsed.

    Args:
        maps: (B, H, W, C).

    Returns:
        Scalar.

    Example:
        >>> float(feature_std(ops.ones((3, 2, 2, 4))))
        0.0
    """
    pooled = l2_normalize(ops.mean(maps, axis=(1, 2)))  # (B, C)
    return ops.mean(ops.std(pooled, axis=0)) * float(pooled.shape[-1]) ** 0.5


def global_metrics(diagnostics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`METRICS` of all replicas, from the diagnostics of each.

    Args:
        diagnostics: Dict of this replica's shares of the losses, its `agreement` and
            `feature_std`, `assignments` (K,), the teacher's mean assignment, and
            `active` (2, B, K), the teacher's active slots of both views.

    Returns:
        Dict of metric to scalar, the same on every replica.

    Example:
        >>> scalars = dict.fromkeys([*LOSSES, "agreement", "feature_std"], 0.5)
        >>> active = ops.array([[[True, False]], [[True, False]]])
        >>> found = {**scalars, "assignments": ops.array([1.0, 0.0]), "active": active}
        >>> float(global_metrics(found)["prototypes_used"])
        1.0
    """
    diagnostics = dict(diagnostics)
    dtype = keras.config.floatx()
    active = ops.cast(diagnostics.pop("active"), dtype)
    assignments = diagnostics.pop("assignments")
    scalars = {k: ops.cast(v, dtype) for k, v in diagnostics.items()}
    summed = [scalars.pop(name) for name in LOSSES]
    names = list(scalars)
    # One collective carries everything.
    share = 1.0 / replicas.num_replicas()
    parts = [
        ops.stack(summed),
        ops.stack([scalars[n] for n in names]) * share,
        ops.mean(ops.sum(active, axis=-1))[None] * share,
        ops.cast(assignments, dtype) * share,
        ops.max(active, axis=(0, 1)),
    ]
    total = replicas.sum_over_replicas(ops.concatenate(parts))
    sizes = [part.shape[0] for part in parts]
    summed, means, per_image, assignments, used = tf.split(total, sizes)
    values: dict[str, Tensor] = dict(zip(LOSSES, tf.unstack(summed), strict=True))
    values.update(zip(names, tf.unstack(means), strict=True))
    values["active_slots"] = per_image[0]
    values["prototypes_used"] = ops.sum(ops.cast(used > 0, dtype))
    entropy = -ops.sum(assignments * ops.log(assignments + 1e-12))
    values["assignment_entropy"] = entropy
    return values


def report(
    trackers: Mapping[str, keras.Metric],
    diagnostics: Mapping[str, Tensor],
    good: Tensor | None = None,
) -> dict[str, Tensor]:
    """Adds a step's metrics to the epoch's means, unless the step was skipped.

    Args:
        trackers: Means by name.
        diagnostics: Of `scalars_of`.
        good: 1, or 0 where the step was skipped; None: none ever is.

    Returns:
        Dict of name to the epoch's mean, or to the step's number where none is kept.

    Example:
        >>> scalars = dict.fromkeys([*LOSSES, "agreement", "feature_std"], 0.5)
        >>> active = ops.array([[[True, False]], [[True, False]]])
        >>> found = {**scalars, "assignments": ops.array([1.0, 0.0]), "active": active}
        >>> float(report({"loss": keras.metrics.Mean()}, found)["loss"])
        0.5
    """
    untracked = {}
    for name, value in global_metrics(diagnostics).items():
        if name not in trackers:
            untracked[name] = value
            continue
        if good is not None:
            value = ops.where(good > 0, value, ops.zeros_like(value))
        trackers[name].update_state(value, sample_weight=good)
    return {name: mean.result() for name, mean in trackers.items()} | untracked
