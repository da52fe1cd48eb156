"""Features made comparable: centred, and as wide in every direction.

The pooled features of a network share most of their length: all are positive, and their
cosines lie between 0.98 and 1. What is left when the mean is taken away, and every
direction is divided by how far features spread along it, tells images apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.extras import needed
from slotcon_tf.method.objective import l2_normalize
from slotcon_tf.types import Tensor

_BATCH = 16
FEWEST = 32  # images; of fewer, even a mean is little more than chance


class Whitening(tf.Module):
    """(features - mean) @ matrix, of length 1.

    Args:
        mean: (C,).
        matrix: (C, C), symmetric.
        facts: What a model card says of it.

    Attributes:
        facts: `images`, how many the statistics are of; `shrinkage`, in [0, 1].

    Example:
        >>> whitening = Whitening(np.array([1.0, 0.0]), np.eye(2), {})
        >>> whitening(tf.constant([[1.0, 5.0], [3.0, 0.0]])).numpy().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(
        self, mean: np.ndarray, matrix: np.ndarray, facts: dict[str, Any]
    ) -> None:
        super().__init__(name="whitening")
        self.mean = tf.Variable(tf.constant(mean, tf.float32), False, name="mean")
        matrix_ = tf.constant(matrix, tf.float32)
        self.matrix = tf.Variable(matrix_, False, name="matrix")
        self.facts = facts

    def __call__(self, features: Tensor) -> Tensor:
        """float32 (N, C) -> float32 (N, C) of length 1."""
        return l2_normalize(tf.matmul(features - self.mean, self.matrix))

    @classmethod
    def of(cls, features: np.ndarray) -> Whitening:
        """The statistics of features.

        The covariance is shrunk towards a multiple of the identity by the share that
        Ledoit and Wolf estimate ("A well-conditioned estimator for large-dimensional
        covariance matrices", 2004): of fewer images than dimensions it could not be
        inverted, and of few more its smallest directions would be noise blown up.
        Their share and not the oracle-approximating one, which takes the features for
        Gaussian: means of rectified maps are not. Of all matrices that whiten, the
        symmetric one is taken: it moves features least, and little when the images
        change a little.

        Args:
            features: float (M, C), of M >= `FEWEST` images.

        Raises:
            ValueError: If there are fewer, or all are equal to rounding, or NaN.
            MissingExtra: Without scikit-learn, of the extra `evaluation`.

        Example:
            >>> features = np.random.default_rng(0).normal(5.0, [1.0, 0.1], (200, 2))
            >>> found = Whitening.of(features)(tf.constant(features, tf.float32))
            >>> bool(np.all(np.abs(np.mean(found, axis=0)) < 0.1))
            True
        """
        with needed("evaluation"):
            from sklearn.covariance import ledoit_wolf
        features = np.asarray(features, np.float64)
        images, channels = features.shape
        if images < FEWEST:
            raise ValueError(
                f"Whitening needs {FEWEST} images at least, better ten times the "
                f"features' {channels} dimensions. Received: {images} that can be "
                "read. Give more, or leave `whiten` out."
            )
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features)).any(axis=1).sum())
            raise ValueError(
                "Whitening needs features that are finite numbers. Received: NaN or "
                f"infinite ones of {bad} of {images} images. Look at the model."
            )
        # Features are float32: what is below its rounding is no difference.
        rounding = np.finfo(np.float32).eps * np.abs(features).max()
        covariance, shrinkage = ledoit_wolf(features)
        variances, directions = np.linalg.eigh(covariance)
        if not variances[-1] > rounding**2:
            raise ValueError(
                "Whitening needs images whose features differ. Received: "
                f"{images} images with the same. Give others, or look at the model."
            )
        # Of directions without any spread (a channel that is always 0), nothing.
        tiny = variances[-1] * np.finfo(np.float64).eps * channels
        factors = np.where(
            variances > tiny, 1 / np.sqrt(np.maximum(variances, tiny)), 0
        )
        if images < 10 * channels:
            logging.warning(
                "Whitening: %d images for %d dimensions; their covariance is shrunk "
                "by %.2f. Ten images for each dimension say more.",
                images,
                channels,
                shrinkage,
            )
        matrix = directions * factors @ directions.T
        facts = {"images": images, "shrinkage": round(float(shrinkage), 6)}
        return cls(features.mean(axis=0), matrix, facts)


def features_of(served: Any, images: Iterable[np.ndarray]) -> np.ndarray:
    """Pooled features of pixels, a few images at a time.

    Args:
        served: What has `features`, as a `ServedModel`.
        images: uint8 (height, width, 3), all of one size.

    Returns:
        float32 (M, C); (0, 0) of no image.

    Example:
        >>> import types
        >>> def features(images):
        ...     return {"pooled": tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])}
        >>> served = types.SimpleNamespace(features=features)
        >>> features_of(served, [np.full((2, 2, 3), i, np.uint8) for i in range(3)])
        array([[0., 0., 0.],
               [1., 1., 1.],
               [2., 2., 2.]], dtype=float32)
    """
    images, parts = iter(images), []

    @tf.function(reduce_retracing=True, autograph=False)
    def pooled(batch):
        return served.features(batch)["pooled"]

    while batch := list(itertools.islice(images, _BATCH)):
        parts.append(pooled(tf.constant(np.stack(batch))).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
