"""Groups of whole images, and their match with true masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from slotcon_tf.data.labelled import VOID
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.evaluation.metrics import confusion_matrix
from slotcon_tf.method.slotcon import SlotCon


def predict_groups(
    model: SlotCon,
    images: np.ndarray,
    *,
    which: str = "teacher",
    scale: float = 1.0,
    batch_size: int = 16,
) -> np.ndarray:
    """The winning prototype at every pixel.

    Args:
        model: A `SlotCon`.
        images: uint8 (N, height, width, 3).
        which: "teacher" or "student".
        scale: Factor by which images are resized first; the larger, the finer the map.
        batch_size: Images at once.

    Returns:
        int32 (N, height, width) of prototype ids.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> predict_groups(model, np.zeros((1, 48, 64, 3), np.uint8)).shape
        (1, 48, 64)
    """
    inference = Inference(model, which, scale)
    starts = range(0, len(images), batch_size)
    found = [inference.groups(images[i : i + batch_size]) for i in starts]
    return np.concatenate(found)


def group_confusions(
    inference: Inference,
    examples: Iterable[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    *,
    batch_size: int = 16,
) -> csr_array:
    """Pixels by class and group, of every image by itself.

    Args:
        inference: An `Inference` of a `SlotCon`.
        examples: Iterable of images uint8 (height, width, 3) and classes (height,
            width), `VOID` where a pixel counts nowhere.
        num_classes: C.
        batch_size: Images at once.

    Returns:
        Sparse int64 array (N, C * K): `confusion_matrix` of an image, flattened.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> example = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
        >>> found = group_confusions(Inference(model), [example], num_classes=2)
        >>> found.shape, int(found.sum())  # classes x prototypes; all pixels
        ((1, 6), 3072)
    """
    rows = []
    for images, masks in same_size_batches(examples, batch_size):
        groups = inference.groups(images)
        for mask, group in zip(masks, groups, strict=True):
            found = confusion_matrix(
                mask, group, num_classes, inference.num_prototypes, ignore=VOID
            )
            rows.append(csr_array(found.reshape(1, -1)))
    found: Any = vstack(rows, format="csr")
    return found
