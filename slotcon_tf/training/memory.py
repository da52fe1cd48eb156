"""Memory for time: a batch in parts, and stages computed twice.

`accumulate` takes a batch part by part, one after the other. `rematerialize` keeps only
what goes between an encoder's stages; what lies inside a stage is computed a second
time when its gradient is due: the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from slotcon_tf.training import replicas
from slotcon_tf.training.normalization import recording
from slotcon_tf.types import Batch, Tensor


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """A batch as `parts` batches of equal size.

    Args:
        batch: Dict, or nest of dicts, of tensors (B, ...).
        parts: Divides B.

    Returns:
        List of `parts` batches like it.

    Raises:
        ValueError: If B is known and does not divide.

    Example:
        >>> [part["x"].shape[0] for part in split_batch({"x": tf.ones((6, 2))}, 3)]
        [2, 2, 2]
    """
    flat = tf.nest.flatten(batch)
    size = flat[0].shape[0]
    if size is not None and size % parts:
        raise ValueError(
            "The batch of a replica must divide by accumulate_steps. Received: "
            f"{size} images for accumulate_steps={parts}. "
            f"Use {max(size - size % parts, parts)} images."
        )
    pieces = [tf.split(value, parts) for value in flat]
    return [
        tf.nest.pack_sequence_as(batch, piece) for piece in zip(*pieces, strict=True)
    ]


def accumulate(
    gradients_of: Callable[[Batch], tuple[list[Tensor], Tensor, dict[str, Tensor]]],
    batch: Batch,
    parts: int,
) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
    """Mean over the parts of a batch of gradients and what comes with them.

    Each part waits for the one before: the memory of one part's activations is in use
    at a time. XLA orders operations as it likes, and may not keep to that.

    Args:
        gradients_of: Function of a batch that returns a list of gradients, a batch
            center (K,) and a dict of diagnostics, see `SlotCon.compute_losses`.
        batch: Dict of tensors (B, ...).
        parts: Number of parts, 2 or more.

    Returns:
        Tuple of the three; `active` diagnostics are concatenated, the rest are means.

    Example:
        >>> def gradients_of(batch):
        ...     mean = tf.reduce_mean(batch["x"])
        ...     return [2.0 * mean], mean, {"loss": mean}
        >>> batch = {"x": tf.constant([1.0, 3.0])}
        >>> [gradient], center, found = accumulate(gradients_of, batch, 2)
        >>> float(gradient), float(center), float(found["loss"])
        (4.0, 2.0, 2.0)
    """
    if replicas.num_replicas() == 1:
        # Traced once for all parts. Replicas cannot meet inside of a function.
        gradients_of = tf.function(gradients_of, autograph=False)
    total, found = [], []
    for part in split_batch(batch, parts):
        with tf.control_dependencies(total):
            part = tf.nest.map_structure(tf.identity, part)
            gradients, center, diagnostics = gradients_of(part)
            if total:
                gradients = [a + b for a, b in zip(total, gradients, strict=True)]
            total = gradients
        found.append((center, diagnostics))
    centers, diagnostics = zip(*found, strict=True)
    merged = {
        name: tf.concat([d[name] for d in diagnostics], axis=1)
        if name == "active"
        else tf.add_n([d[name] for d in diagnostics]) / parts
        for name in diagnostics[0]
    }
    return [g / parts for g in total], tf.add_n(centers) / parts, merged


def stage_models(encoder: keras.Model) -> list[keras.Model]:
    """The stages of a `slotcon_tf.ResNet` as models that share its layers.

    Args:
        encoder: Has `pyramid_outputs`, symbolic maps; the last is its output.

    Returns:
        List of functional models; applied in turn they are the encoder.

    Raises:
        ValueError: If the encoder has none.

    Example:
        >>> from slotcon_tf import backbone
        >>> [s.output_shape[-1] for s in stage_models(backbone("resnet10", width=8))]
        [8, 16, 32, 64]
    """
    levels = getattr(encoder, "pyramid_outputs", None)
    if not levels:
        raise ValueError(
            "remat needs an encoder with pyramid_outputs, such as slotcon_tf.ResNet. "
            f"Received: {encoder.name!r}. Set remat=False, or accumulate_steps to save "
            "memory."
        )
    ends = list(levels.values())
    starts = [encoder.inputs[0], *ends[:-1]]
    return [keras.Model(a, b) for a, b in zip(starts, ends, strict=True)]


def rematerialize(
    stages: Sequence[keras.Model], inputs: Tensor, training: bool
) -> Tensor:
    """Applies stages in turn, keeping for the gradient what goes between them only.

    Args:
        stages: Of `stage_models`.
        inputs: Images (B, height, width, 3).
        training: Passed on to the stages.

    Returns:
        The last stage's map.

    Example:
        >>> from slotcon_tf import backbone
        >>> stages = stage_models(backbone("resnet10", width=8))
        >>> rematerialize(stages, tf.ones((1, 64, 64, 3)), training=True).shape
        TensorShape([1, 2, 2, 64])
    """
    x = inputs
    for stage in stages:
        x = _recomputed(stage, training)(x)
    return x


def _recomputed(stage: keras.Model, training: bool) -> Callable[[Tensor], Tensor]:
    calls: list[None] = []

    def forward(x: Tensor) -> Tensor:
        # The second call is the gradient's: statistics were recorded by the first.
        first = not calls
        calls.append(None)
        with recording(first):
            return stage(x, training=training)

    return tf.recompute_grad(forward)
