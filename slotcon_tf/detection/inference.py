"""Detector: objects in images of any size, in the images' own pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.pyramid import MULTIPLE
from slotcon_tf.detection.resize import (
    detector_edges,
    resize_image,
    shortest_edge_size,
)
from slotcon_tf.images.statistics import normalize
from slotcon_tf.types import Tensor


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in one image, the best first; D may be 0.

    Attributes:
        boxes: float32 (D, 4): x1, y1, x2, y2 in the image's own pixels, within it.
        scores: float32 (D,).
        classes: int32 (D,).
        masks: float32 (D, 28, 28), probabilities within each box; None of a detector
            without masks. `paste_masks` brings them to the image's size.

    Example:
        >>> found = Found(np.zeros((2, 4)), np.array([0.9, 0.2]), np.array([0, 1]))
        >>> len(found), len(found.above(0.5))
        (2, 1)
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> Found:
        """Those of a score and more."""
        return self._taken(self.scores >= score)

    def _taken(self, which):
        masks = None if self.masks is None else self.masks[which]
        return Found(self.boxes[which], self.scores[which], self.classes[which], masks)


class Detector:
    """A trained `MaskRCNN` over images of any size.

    An image is resized by its shortest edge, normalised as the model's were, padded,
    and looked at alone; boxes are brought to the image's own pixels and clipped, and
    those without an area are dropped. All sizes are one graph.

    Args:
        model: `MaskRCNN`; its present weights are used at every call.
        short_edge: Pixels that the shortest edge of an image becomes; None: as the
            model keeps it.
        long_edge: Pixels that its longest edge becomes at most; None: the same.

    Raises:
        ValueError: If the longest edge is below the shortest.

    Call arguments:
        image: uint8 (height, width, 3), RGB.

    Returns:
        `Found`.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16, "max_detections": 3}
        >>> names = ("cat", "dog")
        >>> model = MaskRCNN(backbone("resnet10", width=8), class_names=names, **sizes)
        >>> detector = Detector(model, short_edge=64)
        >>> found = detector(np.zeros((48, 80, 3), np.uint8))
        >>> len(found) <= 3, found.boxes.shape[1]
        (True, 4)

    Reference: detectron2's GeneralizedRCNN.inference and detector_postprocess.
    """

    def __init__(
        self,
        model: MaskRCNN,
        short_edge: int | None = None,
        long_edge: int | None = None,
    ) -> None:
        self.model = model
        edges = detector_edges(model, short_edge, long_edge)
        self.short_edge, self.long_edge = edges
        image = tf.TensorSpec([None, None, 3], tf.uint8)
        self._call = tf.function(self._traced, [image], autograph=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.class_names

    @property
    def has_masks(self) -> bool:
        return self.model.mask_head is not None

    def __call__(self, image: np.ndarray) -> Found:
        height, width = image.shape[:2]
        size = shortest_edge_size(height, width, self.short_edge, self.long_edge)
        return self.in_resized(resize_image(image, *size), (height, width))

    def in_resized(self, image: np.ndarray, size: Sequence[int]) -> Found:
        """Looks at an image as it is, without resizing it first.

        Args:
            image: uint8 (h, w, 3).
            size: (height, width) of the image whose pixels boxes are told in.

        Returns:
            `Found`.
        """
        there, boxes, scores, classes, *masks = (
            value.numpy() for value in self._call(tf.constant(image))
        )
        scale = np.array(size[::-1]) / image.shape[1::-1]  # of x and y
        corners = boxes.reshape(-1, 2, 2) * scale
        boxes = np.clip(corners, 0, size[::-1]).reshape(-1, 4).astype(boxes.dtype)
        there &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        found = Found(boxes, scores, classes, masks[0] if masks else None)
        return found._taken(there)

    def _traced(self, image: Tensor) -> list[Tensor]:
        statistics = self.model.statistics
        dtype = self.model.variable_dtype  # not the one that convolutions run in
        own = (tf.constant(x, dtype) for x in (statistics.mean, statistics.std))
        pixels = normalize(tf.cast(image, dtype), *own)
        size = tf.shape(image)[:2]
        below, beside = tf.unstack(-size % MULTIPLE)
        pixels = tf.pad(pixels, [[0, below], [0, beside], [0, 0]])  # the mean colour
        found, masks = self.model.detect(pixels[None], size[None])
        values = (found.there, found.boxes, found.scores, found.classes, masks)
        return [value[0] for value in values if value is not None]
