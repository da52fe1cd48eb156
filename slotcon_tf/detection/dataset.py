"""object_batches: from images with objects to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from slotcon_tf.data.objects import Annotation
from slotcon_tf.detection.grouping import PairedOrder
from slotcon_tf.detection.resize import resize_image, shortest_edge_size
from slotcon_tf.detection.truth import edges_of, moved_objects
from slotcon_tf.images.statistics import IMAGENET, ImageStatistics

_MULTIPLE = 32  # of the padded edges: the pyramid's coarsest stride
_DRAWS = 1  # in the seeds, beside `grouping.ORDER`


class AnnotatedImages(Protocol):
    """What is batched: `ObjectImages`, or another that counts and loads as it does.

    Example: See `object_batches`.
        >>> AnnotatedImages.__name__
        'AnnotatedImages'
    """

    num_images: int
    has_masks: bool
    sizes: np.ndarray

    def load(self, index: int) -> tuple[np.ndarray, Annotation]: ...


def object_batches(
    images: AnnotatedImages,
    *,
    short_edges: Sequence[int],
    long_edge: int,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    statistics: ImageStatistics = IMAGENET,
    fixed_sizes: Sequence[tuple[int, int]] = (),
    flip: bool = True,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Endless batches of resized images and their objects, for `MaskRCNN.fit`.

    Every choice is a function of (seed, position in the stream) alone: neither threads
    nor replicas nor the step where the stream starts change a batch. Images come as
    `PairedOrder` has them. Each is resized by a shorter edge drawn from `short_edges`,
    flipped half of the time, and padded on the right and below to the largest of its
    batch, rounded up to multiples of 32. It is known from the images' sizes alone: each
    host finds the same without reading others' images.

    Args:
        images: `ObjectImages`, or anything with `num_images`, `has_masks`, `sizes` and
            `load(i)`.
        short_edges: Pixels of the shorter edge, one of which is drawn.
        long_edge: Pixels of the longer edge at most.
        batch_size: Images per step over all replicas.
        seed: Of the run.
        start_step: The stream begins with this step's batch.
        statistics: What images are normalised with: the model's `statistics`.
        fixed_sizes: Heights and widths; each batch has the smallest that holds it.
        flip: Whether images are flipped.
        input_context: Of a host among several, which makes its own rows.

    Returns:
        tf.data.Dataset of dicts as `MaskRCNN.compute_losses` takes them: `images`
        float32 (N, H, W, 3), normalised, 0 in the padding; `sizes` int32 (N, 2);
        `boxes` float64 (N, G, 4); `classes` int32 (N, G); `valid` bool (N, G); in sets
        with masks `starts` and `ends` float64 (N, G, E, 2) and `parts` int32 (N, G, E).
        G and E are powers of 2.

    Example:
        >>> from slotcon_tf.data.objects.object_images import ObjectImages, Record
        >>> record = Record.of_objects(7, "a.jpg", 60, 80, [[10, 10, 40, 20]], [0])
        >>> blank = lambda number: np.zeros((60, 80, 3), np.uint8)
        >>> images = ObjectImages("mine", [record], blank, {3: "cat", 9: "dog"})
        >>> options = {"short_edges": (48,), "long_edge": 96, "batch_size": 2}
        >>> batch = next(iter(object_batches(images, flip=False, **options)))
        >>> batch["images"].shape, batch["boxes"].numpy()[0].tolist()
        (TensorShape([2, 64, 64, 3]), [[8.0, 8.0, 40.0, 24.0]])
    """
    hosts = input_context.num_input_pipelines if input_context else 1
    host = input_context.input_pipeline_id if input_context else 0
    local = batch_size // hosts
    batches = _Batches(images, short_edges, long_edge, batch_size, seed, flip)

    def example(number):
        position = number // local * batch_size + host * local + number % local
        types = [tf.uint8, *[tf.int32] * 2, tf.float64, tf.int32]
        types += [tf.float64, tf.float64, tf.int32]
        found = tf.numpy_function(batches.example, [position], types, stateful=False)
        image, size, padded, boxes, classes, starts, ends, parts = found
        image = tf.cast(tf.ensure_shape(image, [None, None, 3]), tf.float32)
        size, padded = (tf.ensure_shape(x, [2]) for x in (size, padded))
        below, right = tf.unstack(padded - size)
        # Padded after the normalisation: with the mean colour.
        image = tf.pad(statistics.normalize(image), [[0, below], [0, right], [0, 0]])
        boxes = tf.ensure_shape(boxes, [None, 4])
        row = {
            "images": tf.ensure_shape(image, [None, None, 3]),
            "sizes": size,
            "boxes": boxes,
            "classes": tf.ensure_shape(classes, [None]),
            "valid": tf.reduce_any(boxes != 0, axis=1),
        }
        if images.has_masks:
            row["starts"] = tf.ensure_shape(starts, [None, None, 2])
            row["ends"] = tf.ensure_shape(ends, [None, None, 2])
            row["parts"] = tf.ensure_shape(parts, [None, None])
        return row

    numbers = tf.data.Dataset.range(start_step * local, tf.int64.max)
    return (
        numbers.map(example, tf.data.AUTOTUNE, deterministic=True)
        .padded_batch(local, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


class _Batches:
    """Images and objects by their position in the stream."""

    def __init__(self, images, short_edges, long_edge, batch_size, seed, flip):
        self.images, self.seed, self.flip = images, seed, flip
        self.short_edges, self.long_edge = tuple(short_edges), long_edge
        self.batch_size = batch_size
        self.order = PairedOrder(images.sizes, seed=seed, paired=batch_size % 2 == 0)

    def drawn(self, position):
        """The number of an image, its height and width, and whether it is flipped."""
        rng = np.random.default_rng([self.seed, _DRAWS, position])
        short = self.short_edges[rng.integers(len(self.short_edges))]
        flipped = self.flip and bool(rng.random() < 0.5)
        index = self.order.image(position)
        size = shortest_edge_size(*self.images.sizes[index], short, self.long_edge)
        return index, *size, flipped

    def padded(self, step):
        """Height and width of a batch."""
        first = step * self.batch_size
        drawn = [self.drawn(first + row) for row in range(self.batch_size)]
        return [-(-max(x[a] for x in drawn) // _MULTIPLE) * _MULTIPLE for a in (1, 2)]

    def example(self, position):
        """What is batched of one image; see `object_batches`."""
        position = int(position)
        index, height, width, flipped = self.drawn(position)
        image, annotation = self.images.load(index)
        image = resize_image(image, height, width)
        if flipped:
            image = image[:, ::-1]
        boxes, classes, polygons = moved_objects(annotation, height, width, flipped)
        count = _power_of_two(len(boxes))
        most = max((sum(map(len, own)) for own in polygons), default=0)
        edges = edges_of(polygons, _power_of_two(most))
        padded = np.array(self.padded(position // self.batch_size), np.int32)
        size = np.array([height, width], np.int32)
        arrays = [_filled(x, count) for x in (boxes, classes, *edges)]
        return np.ascontiguousarray(image), size, padded, *arrays


def _power_of_two(number):
    """The next one, 1 at least."""
    return 1 << max(number - 1, 0).bit_length()


def _filled(values, count):
    """With zeros behind, up to `count`."""
    margins = [(0, count - len(values)), *[(0, 0)] * (values.ndim - 1)]
    return np.pad(values, margins)
