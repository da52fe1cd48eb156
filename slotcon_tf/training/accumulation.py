"""Gradients of a batch in parts, one after the other, to save memory."""

import tensorflow as tf

from slotcon_tf.training import replicas


def split_batch(batch, parts):
    """A batch as `parts` batches of equal size.

    Args:
        batch: Dict, or nest of dicts, of tensors (B, ...).
        parts: Divides B.

    Returns:
        List of `parts` batches like it.

    Raises:
        ValueError: If B is known and does not divide.
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


def accumulate(gradients_of, batch, parts):
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
