"""Classification of images by frozen features: nearest neighbours, a linear layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.extras import needed

if TYPE_CHECKING:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import Pipeline

NEIGHBORS = 20
TEMPERATURE = 0.07  # Wu et al. 2018 (arXiv 1805.01978), section 3.4


def features(
    inference: Inference,
    data: Iterable[tuple[np.ndarray, int]],
    *,
    batch_size: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features of a labelled set.

    Args:
        inference: An `Inference`.
        data: Iterable of images uint8 (height, width, 3) and class numbers.
        batch_size: Images at once.

    Returns:
        Tuple of float32 (N, C) and int (N,).

    Example:
        >>> from slotcon_tf import backbone
        >>> inference = Inference(backbone("resnet10", width=8))
        >>> data = [(np.zeros((64, 64, 3), np.uint8), 7)]
        >>> vectors, labels = features(inference, data)
        >>> vectors.shape, labels.tolist()
        ((1, 64), [7])
    """
    vectors, labels = [], []
    for images, classes in same_size_batches(data, batch_size):
        vectors.append(inference.pooled(images))
        labels.append(classes)
    return np.concatenate(vectors), np.concatenate(labels)


def nearest_neighbours(
    train: np.ndarray,
    labels: np.ndarray,
    *,
    neighbors: int = NEIGHBORS,
    temperature: float = TEMPERATURE,
) -> KNeighborsClassifier:
    """A classifier by the weighted vote of the nearest training images.

    Neighbours are those of the largest cosine; each votes with exp(cosine /
    temperature).

    Args:
        train: float (N, C).
        labels: int (N,).
        neighbors: Number of neighbours, or all images if there are fewer.
        temperature: Of the weights.

    Returns:
        A fitted scikit-learn classifier.

    Reference: Wu et al. 2018 (arXiv 1805.01978), section 3.4.

    Example:
        >>> train, labels = np.eye(4), np.array([5, 5, 7, 7])
        >>> classifier = nearest_neighbours(train, labels, neighbors=1)
        >>> classifier.predict([[0.1, 0.9, 0.0, 0.0]]).tolist()
        [5]
    """
    with needed("evaluation"):
        from sklearn.neighbors import KNeighborsClassifier
    classifier = KNeighborsClassifier(
        min(neighbors, len(train)),
        metric="cosine",
        algorithm="brute",
        weights=lambda distances: np.exp(-distances / temperature),  # pyright: ignore
    )
    return classifier.fit(train, labels)


def linear_classifier(train: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Logistic regression on standardised features, fitted.

    Args:
        train: float (N, C).
        labels: int (N,).

    Returns:
        A fitted scikit-learn classifier.

    Example:
        >>> train, labels = [[0.0], [1.0], [8.0], [9.0]], [5, 5, 7, 7]
        >>> classifier = linear_classifier(np.array(train), np.array(labels))
        >>> classifier.predict([[2.0], [7.0]]).tolist()
        [5, 7]
    """
    with needed("evaluation"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    classifier = LogisticRegression(max_iter=1000)
    return make_pipeline(StandardScaler(), classifier).fit(train, labels)


def accuracy_counts(
    classifier: KNeighborsClassifier | Pipeline, vectors: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Right or wrong by image: float64 (N, 2) of right and 1.

    Example:
        >>> classifier = nearest_neighbours(np.eye(2), np.array([5, 7]), neighbors=1)
        >>> accuracy_counts(classifier, np.eye(2), np.array([5, 6])).tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    right = classifier.predict(vectors) == labels
    return np.stack([right, np.ones_like(right)], axis=1).astype(np.float64)


def accuracy(counts: np.ndarray) -> dict[str, float]:
    """Score from summed `accuracy_counts`.

    Example:
        >>> accuracy(np.array([3.0, 4.0]))
        {'accuracy': 0.75}
    """
    return {"accuracy": float(counts[0] / counts[1])}
