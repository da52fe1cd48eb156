"""Predictor: classes of images of any size, at once or window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from slotcon_tf.data.labelled import VOID, SegmentedImages, check_two_classes
from slotcon_tf.evaluation.metrics import confusion_matrix, segmentation_metrics
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.segmentation.augmentation import fitted_size
from slotcon_tf.segmentation.model import Segmenter
from slotcon_tf.segmentation.resize import bilinear_matrix

_ROWS_AT_ONCE = 64  # whose logits are held at the label map's size


class Predictor:
    """A trained `Segmenter` over images of any size.

    Args:
        model: `Segmenter`; its present weights are used at every call.
        scale: (long, short), pixels: what images are fitted into first; None for none.
        window: Edge of sliding windows, pixels; 0 for the whole image at once.
        stride: Pixels between windows; the last one ends with the image.

    Raises:
        ValueError: If windows would leave gaps.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.segmentation import Segmenter
        >>> head = {"channels": 8, "concat_input": False}
        >>> names = ("sky", "road")
        >>> model = Segmenter(backbone("resnet10"), class_names=names, head=head)
        >>> Predictor(model)(np.zeros((48, 64, 3), np.uint8)).shape
        (48, 64)
    """

    def __init__(
        self,
        model: Segmenter,
        *,
        scale: Sequence[int] | None = None,
        window: int = 0,
        stride: int = 0,
    ) -> None:
        if window and not 0 < stride <= window:
            raise ValueError(
                "stride must lie between 1 and the window, or pixels would be left "
                f"out. Received: stride={stride} for window={window}."
            )
        self.model = model
        self.scale = scale
        self.window = window
        self.stride = stride
        images = tf.TensorSpec([1, None, None, 3], tf.float32)
        self._call = tf.function(self._traced, [images], autograph=False)
        maps = tf.TensorSpec([None, None, model.num_classes])
        matrix = tf.TensorSpec([None, None])
        self._strip = tf.function(_winners, [maps, matrix, matrix], autograph=False)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Classes of an image.

        Args:
            image: uint8 (height, width, 3).

        Returns:
            uint8 (height, width).
        """
        size = image.shape[:2]
        if self.scale:
            fitted = fitted_size(size[0], size[1], self.scale)
            resized = Image.fromarray(image).resize(
                (fitted[1], fitted[0]), Image.Resampling.BILINEAR
            )
            image = np.asarray(resized)
        return self._classes(self.logits(image), size)

    def logits(self, image: np.ndarray) -> np.ndarray | tf.Tensor:
        """Logits of an image as it is: float32 (height, width, num_classes)."""
        pixels = tf.cast(image, tf.float32)[None]
        pixels = statistics_of(self.model).normalize(pixels)
        if not self.window:
            return self._call(pixels)[0]
        height, width = image.shape[:2]
        total = np.zeros((height, width, self.model.num_classes), np.float32)
        count = np.zeros((height, width, 1), np.float32)
        for top, bottom in _windows(height, self.window, self.stride):
            for left, right in _windows(width, self.window, self.stride):
                part = self._call(pixels[:, top:bottom, left:right])[0]
                total[top:bottom, left:right] += part.numpy()
                count[top:bottom, left:right] += 1
        return total / count

    def _traced(self, images):
        return tf.cast(self.model(images, training=False), tf.float32)

    def _classes(self, logits, size):
        """Argmax of logits resized to (height, width), some rows at a time."""
        corners: dict[str, Any] = {"align_corners": self.model.align_corners}
        rows = bilinear_matrix(int(logits.shape[0]), size[0], **corners)
        columns = bilinear_matrix(int(logits.shape[1]), size[1], **corners)
        strips = [
            self._strip(logits, rows[first : first + _ROWS_AT_ONCE], columns).numpy()
            for first in range(0, size[0], _ROWS_AT_ONCE)
        ]
        return np.concatenate(strips)


def _winners(logits, rows, columns):
    found = tf.einsum("yh,hwc->ywc", rows, logits)
    found = tf.einsum("xw,ywc->yxc", columns, found)  # (rows, width, C)
    return tf.cast(tf.argmax(found, axis=-1), tf.uint8)


def _windows(length, window, stride):
    """Starts and ends of windows that cover a length; all are as long as the first.

    Reference: mmsegmentation's EncoderDecoder.slide_inference.
    """
    number = max(length - window + stride - 1, 0) // stride + 1
    for index in range(number):
        end = min(index * stride + window, length)
        yield max(end - window, 0), end


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray],
    images: SegmentedImages,
    *,
    indices: Iterable[int] | None = None,
) -> dict[str, Any]:
    """Scores of predictions against label maps.

    Args:
        predict: Function of an image uint8 (height, width, 3) to classes (height,
            width), such as a `Predictor`.
        images: `SegmentedImages`.
        indices: Numbers of the images that count, which may hold one class only; None
            for all.

    Returns:
        Dict of `miou`, `pixel_accuracy`, `mean_accuracy` and `class_iou`, as
        `segmentation_metrics` has them: classes without a pixel are left out.

    Raises:
        LabelError: If all label maps have pixels of one class only; before the work.

    Example:
        >>> class Halves:
        ...     num_images, num_classes = 1, 2
        ...     def load(self, index):
        ...         labels = np.repeat(np.uint8([0, 1]), 8).reshape(2, 8)
        ...         return np.zeros((2, 8, 3), np.uint8), labels
        >>> scores = evaluate(lambda image: np.zeros((2, 8), np.uint8), Halves())
        >>> scores["pixel_accuracy"]
        0.5
    """
    if indices is None:
        check_two_classes(images)
    count = images.num_classes
    confusion = np.zeros((count, count), np.int64)
    for index in range(images.num_images) if indices is None else indices:
        image, labels = images.load(index)
        confusion += confusion_matrix(labels, predict(image), count, count, ignore=VOID)
    return segmentation_metrics(confusion)
