"""What a network makes of one image: features, their colours, groups, slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.extras import needed
from slotcon_tf.method.upsampled import upsampled_argmax


class ImageMaps(NamedTuple):
    """Maps of one image; the last two are None of an encoder alone.

    Attributes:
        features: float32 (H, W, C), the encoder's map.
        logits: float32 (H, W, K), assignment logits.
        similarity: float32 (K,), cosine of each prototype and the slot that it pools.

    Example:
        >>> logits = np.eye(4, dtype=np.float32).reshape(2, 2, 4)
        >>> ImageMaps(np.zeros((2, 2, 8), np.float32), logits).winners
        array([[0, 1],
               [2, 3]])
    """

    features: np.ndarray
    logits: np.ndarray | None = None
    similarity: np.ndarray | None = None

    @property
    def winners(self) -> np.ndarray:
        """The winning prototype at every position, int64 (H, W)."""
        return self.logits.argmax(-1)


def map_reader(
    model: keras.Model, which: str = "teacher", scale: float = 1.0
) -> Callable[[np.ndarray], ImageMaps]:
    """A function of one image, uint8 (height, width, 3), that gives its `ImageMaps`.

    Args:
        model: A `SlotCon`, or an encoder: a Keras model of images to one map.
        which: "teacher" or "student" of a `SlotCon`.
        scale: Factor by which an image is resized first; the larger, the finer the map.

    Raises:
        ValueError: If it is another model or network, or the scale is not positive.

    Example:
        >>> from slotcon_tf import backbone
        >>> read = map_reader(backbone("resnet10", width=8))
        >>> maps = read(np.zeros((64, 96, 3), np.uint8))
        >>> maps.features.shape, maps.logits
        ((2, 3, 64), None)
    """
    inference = Inference(model, which, scale)

    def read(image):
        found = {name: x[0] for name, x in inference.outputs(image[None]).items()}
        logits, similarity = found.get("assignment_logits"), found.get("similarity")
        return ImageMaps(found["map"], logits, similarity)

    return read


def groups_at(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The winning prototype at every pixel of a picture.

    Args:
        logits: float32 (H, W, K); upsampled bilinearly before the argmax.
        size: (height, width) in pixels.

    Returns:
        int32 (height, width) of prototype ids.

    Example:
        >>> logits = np.eye(2, dtype=np.float32)[None]  # prototype 0 left of 1
        >>> groups_at(logits, (1, 4))
        array([[0, 0, 1, 1]], dtype=int32)
    """
    return upsampled_argmax(logits[None], size)[0].numpy()


CHANNELS = 3
_FITTED = 20_000  # positions that the components are found on, at most
_TAILS = (2.0, 98.0)  # percentiles that become 0 and 1


class FeatureColors:
    """The first three principal components of maps, as red, green and blue.

    One basis and one range hold for all maps: equal features have equal colours,
    whatever image they are from. Features are normalised to unit length first, as the
    prototypes' cosine sees them.

    Args:
        maps: List of float (H, W, C), sizes may differ.
        seed: Of the choice of positions where there are very many.

    Attributes:
        explained: float (3,), shares of the variance.

    Raises:
        ValueError: If there is no position.

    Example:
        >>> maps = list(np.random.default_rng(0).normal(size=(2, 4, 4, 8)))
        >>> colors = FeatureColors(maps)
        >>> colors(maps[0]).shape, bool(colors.explained.sum() < 1)
        ((4, 4, 3), True)
    """

    def __init__(self, maps: Iterable[np.ndarray], seed: int = 0) -> None:
        with needed("evaluation"):
            from sklearn.decomposition import PCA
        rows = [_unit(m).reshape(-1, m.shape[-1]) for m in maps]
        positions = np.concatenate(rows) if rows else np.zeros((0, 1))
        if not len(positions):
            raise ValueError(
                "maps must hold one position at least. Received: none. Give images."
            )
        if len(positions) > _FITTED:
            chosen = np.random.default_rng(seed).choice(
                len(positions), _FITTED, replace=False
            )
            positions = positions[np.sort(chosen)]
        count = min(CHANNELS, *positions.shape)
        self._pca = PCA(count, random_state=seed)
        with np.errstate(invalid="ignore", divide="ignore"):  # features all the same
            values = self._pca.fit_transform(positions)
            shares = np.nan_to_num(self._pca.explained_variance_ratio_)
        self.explained = np.pad(shares, (0, CHANNELS - count))
        low, high = np.percentile(values, _TAILS, axis=0)
        self._low, self._span = low, np.maximum(high - low, 1e-6)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Components of a map (H, W, C), in [0, 1]: float32 (H, W, 3)."""
        height, width, depth = features.shape
        values = self._pca.transform(_unit(features).reshape(-1, depth))
        values = np.clip((values - self._low) / self._span, 0.0, 1.0)
        missing = CHANNELS - values.shape[-1]
        values = np.pad(values, ((0, 0), (0, missing)), constant_values=0.5)
        return values.reshape(height, width, CHANNELS).astype(np.float32)


def smooth(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsamples a map bicubically.

    Args:
        values: float32 (H, W, n) in [0, 1].
        size: (height, width) in pixels.

    Returns:
        float32 (height, width, n) in [0, 1].

    Example:
        >>> values = np.array([[[0.0], [1.0]]], np.float32)
        >>> smooth(values, (1, 4))[0, :, 0].round(2)
        array([0.  , 0.21, 0.79, 1.  ], dtype=float32)
    """
    height, width = size
    channels = [
        np.asarray(
            Image.fromarray(channel).resize((width, height), Image.Resampling.BICUBIC)
        )
        for channel in np.moveaxis(values.astype(np.float32), -1, 0)
    ]
    return np.clip(np.stack(channels, axis=-1), 0.0, 1.0)


def _unit(features):
    features = np.asarray(features, np.float32)
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norms, 1e-12)
