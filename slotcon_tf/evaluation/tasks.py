"""The tasks that a trained network is judged by.

Each is a `Task`: what it measures of every image, and the scores of a sum over images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_array

from slotcon_tf.data.labelled import (
    ClassifiedImages,
    SegmentedImages,
    check_same_classes,
    check_two_classes,
    check_two_labels,
)
from slotcon_tf.evaluation import classification, retrieval
from slotcon_tf.evaluation.bootstrap import summed
from slotcon_tf.evaluation.groups import group_confusions
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.linear import (
    LinearSettings,
    fit_linear,
    linear_confusions,
)
from slotcon_tf.evaluation.metrics import grouping_metrics, segmentation_metrics

Sums: TypeAlias = np.ndarray | csr_array  # (N, M), a row per image
Shown: TypeAlias = Callable[[Iterable], Iterable]  # shows how far an iterable is


@dataclass(frozen=True)
class Task:
    """What is measured, and what it comes to.

    Attributes:
        measure: Function of an `Inference` that returns sums by image, (N, M).
        score: Function of a vector (M,), a sum over images, that returns a dict of
            floats.
        class_scores: Function of that vector that returns float64 (C,), NaN for classes
            that do not occur; None where there is no class table.
        class_names: Tuple of C names.
        matching: Function of that vector that returns a dict of group to the class it
            was matched with; None of tasks without groups.

    Example:
        >>> task = Task(lambda _: np.ones((3, 1)), lambda total: {"n": float(total[0])})
        >>> task.score(task.total(None))  # of three images
        {'n': 3.0}
    """

    measure: Callable[[Inference], Sums]
    score: Callable[[np.ndarray], dict[str, float]]
    class_scores: Callable[[np.ndarray], np.ndarray] | None = None
    class_names: tuple[str, ...] = ()
    matching: Callable[[np.ndarray], dict[int, int]] | None = None

    def total(self, inference: Inference) -> np.ndarray:
        """The sum over all images of what is measured: float64 or int64 (M,)."""
        return summed(self.measure(inference))


def groups_task(
    data: SegmentedImages,
    num_prototypes: int,
    *,
    batch_size: int = 16,
    progress: Shown = iter,
) -> Task:
    """Groups of pixels against label maps: `grouping_metrics`, a class's matched IoU.

    Args:
        data: A `SegmentedImages`.
        num_prototypes: K.
        batch_size: Images at once.
        progress: Function of an iterable that shows how far it is.

    Raises:
        LabelError: If the set has pixels of one class only.

    Example:
        >>> image, ids = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)
        >>> read = lambda number: (image, ids, "a.png")
        >>> data = SegmentedImages("mine", read, 1, table=None)
        >>> task = groups_task(data, num_prototypes=3)
        >>> task.score(np.array([0, 0, 4032, 64, 0, 0]))["miou"]  # classes x prototypes
        1.0
    """
    check_two_classes(data)

    def measure(inference):
        return group_confusions(
            inference, progress(data), data.num_classes, batch_size=batch_size
        )

    def metrics(counts):
        counts = counts.reshape(data.num_classes, num_prototypes)
        return grouping_metrics(counts.astype(np.int64))

    return Task(
        measure,
        lambda counts: _floats(metrics(counts)),
        lambda counts: metrics(counts)["class_iou"],
        data.class_names,
        lambda counts: metrics(counts)["matching"],
    )


def linear_task(
    train: SegmentedImages,
    data: SegmentedImages,
    settings: LinearSettings,
    *,
    batch_size: int = 16,
    progress: Shown = iter,
) -> Task:
    """Linear segmentation: `segmentation_metrics`, a class's IoU.

    Args:
        train: A `SegmentedImages` that the classifier is trained on.
        data: A `SegmentedImages` of the same classes.
        settings: `LinearSettings`.
        batch_size, progress: As in `groups_task`.

    Raises:
        ValueError: If the sets have other classes, or pixels of one class only.

    Example:
        >>> image, ids = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)
        >>> read = lambda number: (image, ids, "a.png")
        >>> data = SegmentedImages("mine", read, 1, table=None)
        >>> task = linear_task(data, data, LinearSettings(steps=10))
        >>> task.score(np.array([4032, 0, 32, 32]))["mean_accuracy"]  # true x predicted
        0.75
    """
    check_same_classes(train, data)
    for images in (train, data):
        check_two_classes(images)

    def measure(inference):
        segmenter = fit_linear(inference, train, settings, progress)
        return linear_confusions(
            inference,
            segmenter,
            progress(data),
            data.num_classes,
            batch_size=batch_size,
        )

    def metrics(counts):
        return segmentation_metrics(counts.reshape(data.num_classes, -1))

    return Task(
        measure,
        lambda counts: _floats(metrics(counts)),
        lambda counts: metrics(counts)["class_iou"],
        data.class_names,
    )


def retrieval_task(
    gallery: SegmentedImages | None,
    data: SegmentedImages,
    *,
    batch_size: int = 16,
    progress: Shown = iter,
) -> Task:
    """Slots that find slots of their class: `retrieval_metrics`, a class's mean AP.

    Args:
        gallery: A `SegmentedImages` whose slots are ranked, or None: those of the other
            images of `data`.
        data: A `SegmentedImages` whose slots are the queries.
        batch_size, progress: As in `groups_task`.

    Raises:
        ValueError: If the sets have other classes, or pixels of one class only.

    Example:
        >>> image, ids = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)
        >>> read = lambda number: (image, ids, "a.png")
        >>> data = SegmentedImages("mine", read, 2, table=None)
        >>> task = retrieval_task(None, data)
        >>> queries, sums, first, images = [2, 0], [1, 0], [1, 0], [2, 2]
        >>> task.score(np.array([*queries, *sums, *first, *images]))["map"]
        0.5
    """
    check_two_classes(data)
    if gallery is not None:
        check_same_classes(gallery, data)
        check_two_classes(gallery)
    count, options = data.num_classes, {"batch_size": batch_size}

    def measure(inference):
        queries = retrieval.labelled_slots(inference, progress(data), count, **options)
        answers = queries
        if gallery is not None:
            answers = retrieval.labelled_slots(
                inference, progress(gallery), count, **options
            )
        return retrieval.retrieval_counts(
            queries, answers, count, same_set=gallery is None
        )

    return Task(
        measure,
        lambda counts: retrieval.retrieval_metrics(counts, count),
        lambda counts: retrieval.class_precisions(counts, count),
        data.class_names,
    )


def classification_task(
    fit: Callable,
    train: ClassifiedImages,
    data: ClassifiedImages,
    *,
    batch_size: int = 16,
    progress: Shown = iter,
) -> Task:
    """Classes of images by pooled features: accuracy.

    Args:
        fit: Function of features (N, C) and classes (N,) that returns a classifier:
            `classification.nearest_neighbours` or `linear_classifier`.
        train: A `ClassifiedImages` that it is fitted to.
        data: A `ClassifiedImages` of the same classes.
        batch_size, progress: As in `groups_task`.

    Raises:
        ValueError: If the sets have other classes, or (when it is measured) images of
            one class only.

    Example:
        >>> from slotcon_tf import backbone
        >>> grey = np.full((2, 64, 64, 3), [[[[0]]], [[[255]]]], np.uint8)
        >>> read = lambda numbers: ((grey[i], i) for i in numbers)
        >>> data = ClassifiedImages("mine", read, 2, "ab")
        >>> task = classification_task(classification.nearest_neighbours, data, data)
        >>> inference = Inference(backbone("resnet10", width=8))
        >>> sorted(task.score(task.total(inference)))
        ['accuracy']
    """
    check_same_classes(train, data)

    def measure(inference):
        known = classification.features(
            inference, progress(train), batch_size=batch_size
        )
        check_two_labels(known[1], train)
        vectors, labels = classification.features(
            inference, progress(data), batch_size=batch_size
        )
        check_two_labels(labels, data)
        return classification.accuracy_counts(fit(*known), vectors, labels)

    return Task(measure, classification.accuracy)


def _floats(metrics):
    return {name: value for name, value in metrics.items() if isinstance(value, float)}
