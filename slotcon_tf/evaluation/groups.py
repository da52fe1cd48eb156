"""Slots of whole images, and their match with true masks."""

import numpy as np
from scipy.sparse import csr_array, vstack

from slotcon_tf.data.labelled import VOID, check_two_labels
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.evaluation.metrics import confusion_matrix, grouping_metrics


def predict_groups(model, images, *, which="teacher", scale=1.0, batch_size=16):
    """The winning prototype at every pixel.

    Args:
        model: A `SlotCon`.
        images: uint8 (N, height, width, 3).
        which: "teacher" or "student".
        scale: Factor by which images are resized first; the larger, the finer the map.
        batch_size: Images at once.

    Returns:
        int32 (N, height, width) of prototype ids.
    """
    inference = Inference(model, which, scale)
    starts = range(0, len(images), batch_size)
    found = [inference.groups(images[i : i + batch_size]) for i in starts]
    return np.concatenate(found)


def group_confusions(inference, examples, num_classes, *, batch_size=16):
    """Pixels by class and group, of every image by itself.

    Args:
        inference: An `Inference` of a `SlotCon`.
        examples: Iterable of images uint8 (height, width, 3) and classes (height,
            width), `VOID` where a pixel counts nowhere.
        num_classes: C.
        batch_size: Images at once.

    Returns:
        Sparse int64 array (N, C * K): `confusion_matrix` of an image, flattened.
    """
    rows = []
    for images, masks in same_size_batches(examples, batch_size):
        groups = inference.groups(images)
        for mask, group in zip(masks, groups, strict=True):
            found = confusion_matrix(
                mask, group, num_classes, inference.num_prototypes, ignore=VOID
            )
            rows.append(csr_array(found.reshape(1, -1)))
    return vstack(rows, format="csr")


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

    Raises:
        LabelError: If masks have pixels of one class only.
    """
    check_two_labels(np.setdiff1d(masks, VOID), "masks")
    groups = predict_groups(model, images, **options)
    confusion = confusion_matrix(
        masks, groups, num_classes, model.num_prototypes, ignore=VOID
    )
    return grouping_metrics(confusion), groups
