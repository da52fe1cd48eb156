"""Slots of whole images, and their match with true masks."""

import numpy as np
import tensorflow as tf

from slotcon_tf.data.photometric import normalize
from slotcon_tf.evaluation.metrics import confusion_matrix, grouping_metrics

VOID = 255  # label of pixels that count nowhere


def predict_groups(model, images, *, which="teacher", scale=1.0, batch_size=16):
    """The winning prototype at every pixel.

    Args:
        model: A `SlotCon`.
        images: uint8 (N, height, width, 3).
        which: "teacher" or "student".
        scale: Factor by which images are resized first; the larger, the finer the map.
        batch_size: Images at once.

    Returns:
        int32 (N, height, width) of prototype ids; the assignment logits are upsampled
        bilinearly before the argmax.
    """
    network = model.network(which)
    height, width = images.shape[1:3]
    size = [round(height * scale), round(width * scale)]

    @tf.function(reduce_retracing=True)
    def groups(batch):
        batch = tf.image.resize(tf.cast(batch, tf.float32), size, "bicubic")
        logits = network(normalize(batch), training=False)["assignment_logits"]
        logits = tf.image.resize(logits, [height, width])  # (B, height, width, K)
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    # The last batch is filled up: one shape, one trace.
    fill = -len(images) % batch_size
    padded = np.concatenate([images, np.repeat(images[-1:], fill, axis=0)])
    starts = range(0, len(padded), batch_size)
    found = [groups(padded[i : i + batch_size]).numpy() for i in starts]
    return np.concatenate(found)[: len(images)]


def evaluate_groups(model, images, masks, num_classes, **options):
    """`grouping_metrics` of a model's slots against true masks.

    Args:
        model: A `SlotCon`.
        images: uint8 (N, height, width, 3).
        masks: int (N, height, width) of class ids, 255 void.
        num_classes: Number of classes.
        **options: Of `predict_groups`.

    Returns:
        Tuple of the metrics and the groups int32 (N, height, width).
    """
    groups = predict_groups(model, images, **options)
    confusion = confusion_matrix(
        masks, groups, num_classes, model.num_prototypes, ignore=VOID
    )
    return grouping_metrics(confusion), groups
