"""crop_dataset: from labelled images to batches of crops."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from slotcon_tf.data.labelled import VOID, check_two_classes
from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.python_calls import ended_at_exit
from slotcon_tf.segmentation.augmentation import Augmentation


class LabelledImages(Protocol):
    """What is cut: `SegmentedImages`, or another that counts and loads as it does.

    Example:
        >>> class Blank:
        ...     num_images = 1
        ...     def load(self, index):
        ...         return np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
        >>> images: LabelledImages = Blank()
        >>> [x.shape for x in images.load(0)]
        [(3, 4, 3), (3, 4)]
    """

    @property
    def num_images(self) -> int: ...

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...


def crop_dataset(
    images: LabelledImages,
    augment: Augmentation,
    *,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    statistics: ImageStatistics = IMAGENET,
) -> tf.data.Dataset:
    """Endless batches of random crops, for `Segmenter.fit`.

    Every choice is a function of (seed, position in the stream) alone: neither threads
    nor replicas nor the step where the stream starts change a batch. Every image comes
    once in `images.num_images` positions, in another order each time; batches go on
    over that border.

    Args:
        images: `SegmentedImages`, or anything with `num_images` and `load(i)`.
        augment: `Augmentation`.
        batch_size: Images per step over all replicas.
        seed: Of the run.
        start_step: The stream begins with this step's batch.
        statistics: What images are normalised with: the `Segmenter`'s `statistics`.

    Returns:
        tf.data.Dataset of tuples: images float32 (B, size, size, 3), normalised, 0
        where a crop is padded on the right and below;
        labels uint8 (B, size, size), `VOID` there.

    Raises:
        LabelError: If the images have pixels of one class only.

    Example:
        >>> from slotcon_tf.segmentation import Augmentation
        >>> class Stripes:
        ...     num_images = 4
        ...     def load(self, index):
        ...         labels = np.repeat(np.uint8([0, 1]), 1536).reshape(48, 64)
        ...         return np.zeros((48, 64, 3), np.uint8), labels
        >>> augment = Augmentation(scale=(64, 48), crop_size=32)
        >>> crops, labels = next(iter(crop_dataset(Stripes(), augment, batch_size=2)))
        >>> tuple(crops.shape), tuple(labels.shape)
        ((2, 32, 32, 3), (2, 32, 32))
    """
    check_two_classes(images)
    size, count = augment.crop_size, images.num_images

    @ended_at_exit
    def cut(position, index):
        rng = np.random.default_rng([seed, int(position)])
        return augment(*images.load(index), rng)

    def example(position):
        epoch = position // count
        index = tf.random.experimental.index_shuffle(  # pyright: ignore[reportAttributeAccessIssue]
            position % count,
            tf.stack([tf.constant(seed, tf.int64), epoch]),
            tf.constant(count - 1, tf.int64),
        )
        image, labels = tf.numpy_function(
            cut, [position, index], (tf.uint8, tf.uint8), stateful=False
        )
        image = tf.ensure_shape(image, [None, None, 3])
        labels = tf.ensure_shape(labels, [None, None])
        height, width = tf.unstack(size - tf.shape(labels))
        margins = [[0, height], [0, width]]
        # Padded after the normalisation: with the mean colour.
        image = tf.cast(image, tf.float32)
        image = tf.pad(statistics.normalize(image), [*margins, [0, 0]])
        labels = tf.pad(labels, margins, constant_values=VOID)
        image = tf.ensure_shape(image, [size, size, 3])
        return image, tf.ensure_shape(labels, [size, size])

    positions = tf.data.Dataset.range(start_step * batch_size, tf.int64.max)
    return (
        positions.map(example, tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
