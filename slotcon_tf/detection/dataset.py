"""object_batches: from images with objects to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.objects import Annotation
from slotcon_tf.detection.batch_plans import BatchPlans
from slotcon_tf.detection.resize import resize_image
from slotcon_tf.detection.truth import (
    edges_of,
    largest_objects,
    limited_corners,
    moved_objects,
)
from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.python_calls import ended_at_exit

_FIXED_CORNERS, _MOST_CORNERS = 256, 1024  # a mask target costs 28 cells for each


class AnnotatedImages(Protocol):
    """What is batched: `ObjectImages`, or another that counts and loads as it does.

    Example: See `object_batches`.
        >>> AnnotatedImages.__name__
        'AnnotatedImages'
    """

    num_images: int
    has_masks: bool
    sizes: np.ndarray
    counts: np.ndarray

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
    max_objects: int = 100,
    max_corners: int | None = None,
    flip: bool = True,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Endless batches of resized images and their objects, for `MaskRCNN.fit`.

    Every choice is a function of (seed, position in the stream) alone: neither threads
    nor replicas nor the step where the stream starts change a batch. Images come as
    `PairedOrder` has them, in pairs where `batch_size` is even. Each is resized by a
    shorter edge drawn from `short_edges`, flipped half of the time, and padded on the
    right and below to the largest of its batch, rounded up to multiples of 32. That is
    known from the images' sizes alone: each host finds the same without reading others'
    images.

    Args:
        images: `ObjectImages`, or anything with `num_images`, `has_masks`, `sizes`,
            `counts` and `load(i)`.
        short_edges: Pixels of the shorter edge, one of which is drawn.
        long_edge: Pixels of the longer edge at most.
        batch_size: Images per step over all replicas.
        seed: Of the run.
        start_step: The stream begins with this step's batch.
        statistics: What images are normalised with: the model's `statistics`.
        fixed_sizes: Heights and widths, multiples of 32, for XLA and TPUs: a batch has
            the smallest that holds its images; where none does, the one that they have
            to be shrunk least for. G and E are fixed, too.
        max_objects: With `fixed_sizes`, objects of an image at most; the smallest are
            left out of more, and told.
        max_corners: Polygon corners of an object at most; more are thinned out, as
            exactly as can be, and told. None: 256 with `fixed_sizes`, else 1,024, which
            few objects of COCO have.
        flip: Whether images are flipped.
        input_context: Of a host among several, which makes its own rows.

    Returns:
        tf.data.Dataset of dicts as `MaskRCNN.compute_losses` takes them: `images`
        float32 (N, H, W, 3), normalised, 0 in the padding; `sizes` int32 (N, 2);
        `boxes` float64 (N, G, 4); `classes` int32 (N, G); `valid` bool (N, G); in sets
        with masks `starts` and `ends` float64 (N, G, E, 2) and `parts` int32 (N, G, E).
        G and E are powers of 2 without `fixed_sizes`.

    Raises:
        ValueError: If sizes or numbers are not as above.

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
    if batch_size < 1 or batch_size % hosts:
        nearest = max(batch_size - batch_size % hosts, hosts)
        raise ValueError(
            f"batch_size is global and must divide by the {hosts} hosts. Received: "
            f"batch_size={batch_size}. Use {nearest}."
        )
    local = batch_size // hosts
    plans = BatchPlans(
        images.sizes,
        short_edges=short_edges,
        long_edge=long_edge,
        batch_size=batch_size,
        seed=seed,
        fixed_sizes=fixed_sizes,
        flip=flip,
    )
    objects = corners = None
    most = max_corners or (_FIXED_CORNERS if fixed_sizes else _MOST_CORNERS)
    if fixed_sizes:
        objects = min(int(images.counts.max()), max_objects)
        corners = most if images.has_masks else 1
        _tell_limit(images, objects)
    rows = _Rows(images, plans, objects, most)
    height, width = fixed_sizes[0] if len(fixed_sizes) == 1 else (None, None)
    types = (tf.uint8, tf.int32, tf.int32, tf.float64, tf.int32)
    types += (tf.float64, tf.float64, tf.int32)

    read = ended_at_exit(rows.read)

    def example(number):
        position = number // local * batch_size + host * local + number % local
        found = tf.numpy_function(read, [position], types, stateful=False)
        image, size, padded, boxes, classes, starts, ends, parts = found
        image = tf.cast(tf.ensure_shape(image, [None, None, 3]), tf.float32)
        size, padded = (tf.ensure_shape(x, [2]) for x in (size, padded))
        below, right = tf.unstack(padded - size)
        # Padded after the normalisation: with the mean colour.
        image = tf.pad(statistics.normalize(image), [[0, below], [0, right], [0, 0]])
        boxes = tf.ensure_shape(boxes, [objects, 4])
        row = {
            "images": tf.ensure_shape(image, [height, width, 3]),
            "sizes": size,
            "boxes": boxes,
            "classes": tf.ensure_shape(classes, [objects]),
            "valid": tf.reduce_any(boxes != 0, axis=1),
        }
        if images.has_masks:
            row["starts"] = tf.ensure_shape(starts, [objects, corners, 2])
            row["ends"] = tf.ensure_shape(ends, [objects, corners, 2])
            row["parts"] = tf.ensure_shape(parts, [objects, corners])
        return row

    numbers = tf.data.Dataset.range(start_step * local, tf.int64.max)
    return (
        numbers.map(example, tf.data.AUTOTUNE, deterministic=True)
        .padded_batch(local, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


class _Rows:
    """Images and objects by their position in the stream."""

    def __init__(self, images, plans, objects, most_corners):
        self.images, self.plans = images, plans
        self.objects, self.most_corners = objects, most_corners

    def read(self, position):
        """What is batched of one image; see `object_batches`."""
        index, size, flipped, padded = self.plans.row(int(position))
        height, width = size
        image, annotation = self.images.load(index)
        image = resize_image(image, height, width)
        if flipped:
            image = image[:, ::-1]
        boxes, classes, polygons = moved_objects(annotation, height, width, flipped)
        polygons = limited_corners(polygons, self.most_corners, annotation)
        if self.objects is None:
            count = _power_of_two(len(boxes))
            corners = (sum(map(len, own)) for own in polygons)
            length = _power_of_two(max(corners, default=1))
        else:
            count = self.objects
            length = self.most_corners if self.images.has_masks else 1
            found = largest_objects(boxes, classes, polygons, count)
            boxes, classes, polygons = found
        arrays = boxes, classes, *edges_of(polygons, length)
        arrays = [_filled(x, count) for x in arrays]
        sizes = (np.array(x, np.int32) for x in (size, padded))
        return np.ascontiguousarray(image), *sizes, *arrays


def _tell_limit(images, most):
    over = images.counts - most
    if (over > 0).any():
        logging.warning(
            "%d of %d images have more than %d objects: their smallest %d are left "
            "out of each pass. Set max_objects=%d to learn them, too.",
            (over > 0).sum(),
            images.num_images,
            most,
            over.clip(min=0).sum(),
            images.counts.max(),
        )


def _power_of_two(number):
    """The next one, 1 at least."""
    return 1 << max(number - 1, 0).bit_length()


def _filled(values, count):
    """With zeros behind, up to `count`."""
    margins = [(0, count - len(values)), *[(0, 0)] * (values.ndim - 1)]
    return np.pad(values, margins)
