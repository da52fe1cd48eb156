"""Object retrieval: slots as queries, ranked slots of other images as answers.

A slot's label is the most frequent class of the pixels it wins; slots that cover mostly
void have none and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from slotcon_tf.data.labelled import VOID
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.evaluation.metrics import confusion_matrix


@dataclass(frozen=True)
class LabelledSlots:
    """Active slots of a set of images.

    Attributes:
        vectors: float32 (S, D), of length 1.
        labels: int (S,), the most frequent class.
        images: int (S,), numbers of the images they are of.
        present: bool (N, C), whether an image has pixels of a class.

    Example:
        >>> slots = LabelledSlots(
        ...     vectors=np.eye(2, dtype=np.float32), labels=np.array([0, 1]),
        ...     images=np.array([0, 0]), present=np.array([[True, True]]),
        ... )
        >>> slots.vectors[slots.labels == 1].tolist()
        [[0.0, 1.0]]
    """

    vectors: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    present: np.ndarray


def labelled_slots(
    inference: Inference,
    examples: Iterable[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    *,
    batch_size: int = 16,
) -> LabelledSlots:
    """The active slots of images, with the class that each covers most.

    Args:
        inference: An `Inference` of a `SlotCon`.
        examples: Iterable of images and classes, as of `SegmentedImages`.
        num_classes: C.
        batch_size: Images at once.

    Returns:
        `LabelledSlots`.

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> example = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.uint8)
        >>> found = labelled_slots(Inference(model), [example], num_classes=2)
        >>> found.present.tolist(), set(found.labels.tolist())
        ([[False, True]], {1})
    """
    vectors, labels, owners, present = [], [], [], []
    for images, masks in same_size_batches(examples, batch_size):
        found, active, groups = inference.slots(images)
        # Void is a class of its own here: a slot that it wins has no label.
        masks = np.where(masks == VOID, num_classes, masks)
        for index in range(len(images)):
            confusion = confusion_matrix(
                masks[index], groups[index], num_classes + 1, inference.num_prototypes
            )
            winner = confusion.argmax(axis=0)  # (K,)
            # A prototype that wins a cell of the map may win no pixel after resizing.
            used = active[index] & (confusion.sum(0) > 0) & (winner < num_classes)
            vectors.append(found[index][used])
            labels.append(winner[used])
            owners.append(np.full(used.sum(), len(present)))
            present.append(confusion.sum(axis=1)[:num_classes] > 0)
    return LabelledSlots(
        np.concatenate(vectors),
        np.concatenate(labels),
        np.concatenate(owners),
        np.stack(present),
    )


def retrieval_counts(
    queries: LabelledSlots,
    gallery: LabelledSlots,
    num_classes: int,
    *,
    same_set: bool = False,
) -> np.ndarray:
    """Sums of average precisions, by query image.

    Slots of the gallery are ranked by cosine. A query whose class has no slot in the
    gallery is left out.

    Args:
        queries, gallery: `LabelledSlots`.
        num_classes: C.
        same_set: Whether both are of the same images; slots of a query's own image then
            do not count.

    Returns:
        float64 (N, 4 * C): by query image and class, the number of queries, the sum of
        their average precisions, how often the first answer was right, and whether the
        class is in the image.

    Example:
        >>> slots = LabelledSlots(
        ...     np.eye(2), np.array([0, 1]), np.array([0, 0]), np.array([[True, True]])
        ... )
        >>> counts = retrieval_counts(slots, slots, num_classes=2)
        >>> retrieval_metrics(counts.sum(axis=0), 2)["map"]
        1.0
    """
    counts = np.zeros((len(queries.present), 4, num_classes))
    counts[:, 3] = queries.present
    for vector, label, image in zip(
        queries.vectors, queries.labels, queries.images, strict=True
    ):
        others = gallery.images != image if same_set else slice(None)
        relevant = gallery.labels[others] == label
        if not relevant.any():
            continue
        order = np.argsort(-(gallery.vectors[others] @ vector), kind="stable")
        ranked = relevant[order]
        counts[image, :3, label] += 1, average_precision(ranked), ranked[0]
    return counts.reshape(len(counts), -1)


def average_precision(ranked: np.ndarray) -> float:
    """Mean, over the relevant answers, of the precision down to their rank.

    Args:
        ranked: bool (S,), whether the answer of each rank is relevant; one at least is.

    Returns:
        float in (0, 1].

    Example:
        >>> average_precision(np.array([True, False, False, True]))  # (1/1 + 2/4) / 2
        0.75
    """
    ranks = np.flatnonzero(ranked) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def class_precisions(counts: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean average precision of each class, from summed `retrieval_counts`.

    Returns:
        float64 (C,): 0 for a class that no slot covers most, NaN where it is in no
        image.

    Example:
        >>> queries, sums, first, images = [2, 0, 0], [1, 0, 0], [1, 0, 0], [5, 3, 0]
        >>> class_precisions(np.array([*queries, *sums, *first, *images]), 3).tolist()
        [0.5, 0.0, nan]
    """
    queries, precisions, _, present = counts.reshape(4, num_classes)
    return np.where(present > 0, precisions / np.maximum(queries, 1), np.nan)


def retrieval_metrics(counts: np.ndarray, num_classes: int) -> dict[str, float]:
    """Scores from summed `retrieval_counts`.

    Args:
        counts: (4 * C,).
        num_classes: C.

    Returns:
        Dict of `map_classes`, the mean of `class_precisions`; and, over queries,
        `map`, the mean average precision, and `precision_at_1`. Those two flatter
        groups that cover common classes only.

    Example:
        >>> queries, sums, first, images = [2, 0], [1, 0], [1, 0], [5, 3]
        >>> retrieval_metrics(np.array([*queries, *sums, *first, *images]), 2)
        {'map_classes': 0.25, 'map': 0.5, 'precision_at_1': 0.5}
    """
    queries, precisions, first, present = counts.reshape(4, num_classes)
    classes, total = class_precisions(counts, num_classes)[present > 0], queries.sum()
    return {
        "map_classes": float(classes.mean()) if classes.size else float("nan"),
        "map": float(precisions.sum() / total) if total else float("nan"),
        "precision_at_1": float(first.sum() / total) if total else float("nan"),
    }
