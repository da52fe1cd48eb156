"""What a step reports: losses, and the health of groups and features."""

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.method.grouping import l2_normalize
from slotcon_tf.training import replicas

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


def scalars_of(diagnostics):
    """Diagnostics whose added entries are scalars of Keras's floating dtype.

    Args:
        diagnostics: Dict of `global_metrics`, with scalars of a subclass among it.

    Raises:
        ValueError: If one of the model's own is missing, or an added one is no scalar.
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


def feature_std(maps):
    """Spread of pooled, normalised features: 1 isotropic, 0 collapsed.

    Args:
        maps: (B, H, W, C).

    Returns:
        Scalar.
    """
    pooled = l2_normalize(ops.mean(maps, axis=(1, 2)))  # (B, C)
    return ops.mean(ops.std(pooled, axis=0)) * float(pooled.shape[-1]) ** 0.5


def global_metrics(diagnostics):
    """`METRICS` of all replicas, from the diagnostics of each.

    Args:
        diagnostics: Dict of this replica's shares of the losses, its `agreement` and
            `feature_std`, `assignments` (K,), the teacher's mean assignment, and
            `active` (2, B, K), the teacher's active slots of both views.

    Returns:
        Dict of metric to scalar, the same on every replica.
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
    values = dict(zip(LOSSES, tf.unstack(summed), strict=True))
    values.update(zip(names, tf.unstack(means), strict=True))
    values["active_slots"] = per_image[0]
    values["prototypes_used"] = ops.sum(ops.cast(used > 0, dtype))
    entropy = -ops.sum(assignments * ops.log(assignments + 1e-12))
    values["assignment_entropy"] = entropy
    return values
