"""Unsupervised segmentation metrics, all from one confusion matrix.

`confusion[c, g]` counts the pixels of true class c in group g. Matrices of several
images add up, so a data set streams through in constant memory:

```python
confusion = sum(confusion_matrix(m, g, 14, 32) for m, g in batches)
print(grouping_metrics(confusion)["miou"])
```
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


def confusion_matrix(
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    num_groups: int,
    ignore: int | None = None,
) -> np.ndarray:
    """Counts pixels by true class and group.

    Args:
        labels: Integers of any shape, in [0, num_classes), or `ignore`.
        groups: Integers of the same shape, in [0, num_groups).
        num_classes, num_groups: Sizes of the matrix.
        ignore: Label of pixels to leave out, such as 255; their group is not checked.

    Returns:
        int64 (num_classes, num_groups).

    Raises:
        ValueError: If shapes differ, or a value is no integer or out of its range.

    Example:
        >>> labels, groups = np.array([0, 0, 1, 255]), np.array([1, 1, 0, 0])
        >>> confusion_matrix(labels, groups, 2, 2, ignore=255).tolist()
        [[0, 2], [1, 0]]
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if labels.shape != groups.shape:
        raise ValueError(
            "labels and groups must have the same shape. Received: "
            f"{labels.shape} and {groups.shape}. Resize the groups to the labels."
        )
    for name, values in (("labels", labels), ("groups", groups)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} must be integers. Received: {values.dtype}.")
    labels, groups = labels.ravel(), groups.ravel()
    if ignore is not None:
        valid = labels != ignore
        labels, groups = labels[valid], groups[valid]
    _check_range("labels", labels, num_classes)
    _check_range("groups", groups, num_groups)
    # int64 before the product: uint8 labels would wrap around.
    cells = labels.astype(np.int64) * num_groups + groups.astype(np.int64)
    counts = np.bincount(cells, minlength=num_classes * num_groups)
    return counts.reshape(num_classes, num_groups).astype(np.int64)


def _check_range(name, values, size):
    if values.size and not (values.min() >= 0 and values.max() < size):
        raise ValueError(
            f"{name} must be in [0, {size}). Received: {values.min()} to "
            f"{values.max()}. Pass the void label as `ignore`."
        )


def grouping_metrics(confusion: np.ndarray) -> dict:
    """Scores of a grouping against true classes.

    Classes without a pixel are left out of means. Classes that are left without a
    group by the one-to-one match count 0.

    Args:
        confusion: Non-negative integers (num_classes, num_groups), see
            `confusion_matrix`.

    Returns:
        Dict of
            `miou`, `pixel_accuracy`: one group per class at most, matched to the
                greatest sum of IoU (Hungarian method);
            `miou_majority`, `majority_accuracy`: every group takes its most frequent
                class (many to one; grows with the number of groups);
            `nmi`: mutual information over the arithmetic mean of the entropies;
            `ari`: adjusted Rand index;
            `class_iou`, `class_iou_majority`: float64 (num_classes,), NaN for classes
                without a pixel;
            `matching`: dict of group to class, pairs that share a pixel only.
        The scalars are floats; without any pixel all of them are NaN.

    Raises:
        ValueError: If the matrix is not 2-D, not of integers, or has a negative count.

    Example:
        >>> found = grouping_metrics(np.array([[0, 8], [2, 0]]))
        >>> found["miou"], found["matching"]
        (1.0, {1: 0, 0: 1})
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or 0 in confusion.shape:
        raise ValueError(
            "confusion must be (num_classes, num_groups). Received: shape "
            f"{confusion.shape}."
        )
    if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
        raise ValueError(
            "confusion must hold non-negative integers. Received: "
            f"{confusion.dtype}, smallest {confusion.min()}."
        )
    total = int(confusion.sum())
    classes, groups = confusion.shape
    present = confusion.sum(axis=1) > 0  # (classes,)

    iou = _iou(confusion)  # (classes, groups)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = confusion[rows, columns] > 0
    rows, columns = rows[matched], columns[matched]
    class_iou = np.where(present, 0.0, np.nan)
    class_iou[rows] = iou[rows, columns]

    # Many to one: merge the groups of a class, then class c is matched with group c.
    winner = confusion.argmax(axis=0)  # (groups,)
    merged = np.zeros((classes, classes), np.int64)
    np.add.at(merged.T, winner, confusion.T)
    class_iou_majority = np.where(present, np.diag(_iou(merged)), np.nan)

    return {
        "miou": _mean(class_iou),
        "pixel_accuracy": _share(confusion[rows, columns].sum(), total),
        "miou_majority": _mean(class_iou_majority),
        "majority_accuracy": _share(np.trace(merged), total),
        "nmi": _nmi(confusion, total),
        "ari": _ari(confusion),
        "class_iou": class_iou,
        "class_iou_majority": class_iou_majority,
        "matching": {int(g): int(c) for c, g in zip(rows, columns, strict=True)},
    }


def segmentation_metrics(confusion: np.ndarray) -> dict:
    """Scores of predicted classes against true ones.

    Args:
        confusion: Non-negative integers (num_classes, num_classes): true class, then
            predicted class.

    Returns:
        Dict of `miou`, over classes that have a pixel; `pixel_accuracy`;
        `mean_accuracy`, the mean of the classes' shares found; and `class_iou` float64
        (num_classes,), NaN for classes without a pixel.

    Example:
        >>> segmentation_metrics(np.array([[3, 1], [0, 4]]))["pixel_accuracy"]
        0.875
    """
    present = confusion.sum(axis=1) > 0
    diagonal, size = np.diag(confusion), confusion.sum(axis=1)
    class_iou = np.where(present, np.diag(_iou(confusion)), np.nan)
    recall = np.where(present, diagonal / np.maximum(size, 1), np.nan)
    return {
        "miou": _mean(class_iou),
        "pixel_accuracy": _share(diagonal.sum(), confusion.sum()),
        "mean_accuracy": _mean(recall),
        "class_iou": class_iou,
    }


def _iou(confusion):
    union = (
        confusion.sum(1, keepdims=True) + confusion.sum(0, keepdims=True) - confusion
    )
    return confusion / np.maximum(union, 1)


def _mean(values):
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _share(count, total):
    return float(count / total) if total else float("nan")


def _nmi(confusion, total):
    if not total:
        return float("nan")
    classes, groups = confusion.sum(axis=1), confusion.sum(axis=0)
    if (classes > 0).sum() == 1 and (groups > 0).sum() == 1:
        return 1.0  # the same trivial partition twice; the formula would be 0/0
    mean_entropy = (_entropy(classes, total) + _entropy(groups, total)) / 2
    rows, columns = np.nonzero(confusion)
    joint = confusion[rows, columns] / total
    expected = (classes[rows] / total) * (groups[columns] / total)
    information = float((joint * np.log(joint / expected)).sum())
    # Rounding may leave the bounds by an ulp, which would print as -0.000.
    return float(np.clip(information / mean_entropy, 0.0, 1.0))


def _entropy(counts, total):
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum())


def _ari(confusion):
    """Adjusted Rand index in Python's integers: pairs of 1e9 pixels exceed int64.

    Reference: Hubert and Arabie, "Comparing partitions", 1985, equation 5.
    """
    total = int(confusion.sum())
    if not total:
        return float("nan")
    same_both = _pairs(confusion)
    same_class, same_group = _pairs(confusion.sum(1)), _pairs(confusion.sum(0))
    all_pairs = total * (total - 1) // 2
    # Everything times 2 * all_pairs, so that one division at the end rounds.
    expected = 2 * same_class * same_group
    most = (same_class + same_group) * all_pairs
    if most == expected:
        return 1.0  # both partitions trivial in the same way
    return (2 * same_both * all_pairs - expected) / (most - expected)


def _pairs(counts):
    return sum(n * (n - 1) // 2 for n in counts[counts > 0].tolist())
