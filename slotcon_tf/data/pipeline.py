"""crop_pair_dataset: from a source of images to batches of two views."""

import os

import tensorflow as tf

from slotcon_tf.data import photometric
from slotcon_tf.data.crops import overlap_boxes, random_crop_pair
from slotcon_tf.data.sources import open_source

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
JITTER_STRENGTH = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue
GRAYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = {"a": 1.0, "b": 0.1}
BLUR_SIGMA = (0.1, 2.0)  # pixels
SOLARIZE_PROBABILITY = {"a": 0.0, "b": 0.2}


def crop_pair_dataset(
    source,
    *,
    batch_size,
    image_size=224,
    min_scale=0.08,
    seed=0,
    start_step=0,
    epochs=None,
    shuffle=True,
    input_context=None,
):
    """Batches of two augmented views of each image, ready for `SlotCon.fit`.

    Every choice is a function of (seed, position in the stream) alone: neither threads
    nor hosts nor the step where the stream starts change a batch. An epoch holds
    `source.num_images // batch_size` steps; what is left over changes every epoch.

    Args:
        source: From `open_source`, or a path: a folder of images or a .txt list.
        batch_size: Images per step over all replicas and hosts.
        image_size: Edge of the square views, pixels.
        min_scale: Smallest area of a crop, as a share of the image's.
        seed: Of the run.
        start_step: The stream begins with this step's batch.
        epochs: Length of the run; None for an endless stream.
        shuffle: Whether every epoch has an order of its own.
        input_context: tf.distribute.InputContext of this host; it then yields its
            share of every global batch.

    Returns:
        tf.data.Dataset of dicts: view_a, view_b float32 (B, size, size, 3), normalised
        with ImageNet's mean and standard deviation; overlap_a, overlap_b float32
        (B, 4) as `crops.overlap_boxes` has them; flipped_a, flipped_b bool (B,).

    Raises:
        ValueError: If the batch exceeds the source or does not divide by the hosts.

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A.
    """
    if isinstance(source, str | os.PathLike):
        kind = "list" if os.fspath(source).endswith(".txt") else "folder"
        source = open_source(kind, source)
    hosts = input_context.num_input_pipelines if input_context else 1
    host = input_context.input_pipeline_id if input_context else 0
    _check_batch(source, batch_size, hosts)
    steps = source.num_images // batch_size
    last_step = None if epochs is None else epochs * steps

    positions = _positions(
        source, steps * batch_size, seed, shuffle, start_step, batch_size
    )
    if last_step is not None:
        positions = positions.take(max(last_step - start_step, 0) * batch_size)
    local = batch_size // hosts
    if hosts > 1:
        positions = positions.filter(lambda p, _: (p % batch_size) // local == host)

    def views(position, item):
        image = source.decode(item) if hasattr(source, "decode") else source.load(item)
        return crop_pair(image, _seed(seed, position), image_size, min_scale)

    return (
        positions.map(views, tf.data.AUTOTUNE, deterministic=True)
        .batch(local, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _seed(*numbers):
    """A stateless seed made of numbers, each folded in."""
    seed = tf.constant([0, 0])
    for number in numbers:
        number = tf.cast(number, tf.int64)
        # Both halves, so that positions beyond 2**31 differ too.
        for half in (number % 2**31, number // 2**31):
            seed = tf.random.fold_in(seed, tf.cast(half, tf.int32))
    return seed


def _positions(source, per_epoch, seed, shuffle, start_step, batch_size):
    """Endless dataset of (position, item): an image number, or encoded bytes."""
    start = start_step * batch_size
    if hasattr(source, "load"):

        def item(position):
            index = position % per_epoch
            if shuffle:
                key = _seed(seed, position // per_epoch)
                last = tf.constant(source.num_images - 1, tf.int64)
                index = tf.random.experimental.index_shuffle(index, key, last)
            return position, index

        stream = tf.data.Dataset.range(start, tf.int64.max)
        return stream.map(item, tf.data.AUTOTUNE, deterministic=True)

    # AutoGraph cannot read tfds's decorated methods, and has nothing to convert here.
    @tf.autograph.experimental.do_not_convert
    def epoch(number):
        key = _seed(seed, number) if shuffle else None
        examples = source.examples(key).take(per_epoch)
        first = number * per_epoch
        return tf.data.Dataset.zip(
            tf.data.Dataset.range(first, first + per_epoch), examples
        )

    first_epoch, skipped = divmod(start, per_epoch)
    stream = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
    return stream.skip(skipped)


def crop_pair(image, seed, image_size, min_scale=0.08):
    """Two views of an image, and where they overlap.

    Args:
        image: uint8 (height, width, 3).
        seed: int32 (2,); equal seeds give equal views.
        image_size: Edge of the views, pixels.
        min_scale: Smallest area of a crop, as a share of the image's.

    Returns:
        The dict of `crop_pair_dataset`, without the batch axis.
    """
    seeds = tf.random.split(seed, 4)
    boxes = random_crop_pair(tf.shape(image)[:2], seeds[0], min_scale)
    flipped = tf.random.stateless_uniform([2], seeds[1]) < FLIP_PROBABILITY
    overlaps = overlap_boxes(boxes, flipped)
    example = {}
    for index, view in enumerate("ab"):
        crop = cut(image, boxes[index], flipped[index], image_size)
        example[f"view_{view}"] = photometric.normalize(
            distort(crop, seeds[2 + index], view)
        )
        example[f"overlap_{view}"] = overlaps[index]
        example[f"flipped_{view}"] = flipped[index]
    return example


def cut(image, box, flipped, image_size):
    """Crops, resizes (bicubic with antialias, in whole grey levels) and flips.

    Args:
        image: uint8 (height, width, 3).
        box: int32 (4,): top, left, height, width.
        flipped: bool scalar.
        image_size: Edge of the result, pixels.

    Returns:
        float32 (image_size, image_size, 3) in whole grey levels.
    """
    crop = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], 3])
    size = [image_size, image_size]
    crop = tf.image.resize(crop, size, "bicubic", antialias=True)
    crop = tf.round(tf.clip_by_value(crop, 0.0, 255.0))
    return tf.where(flipped, crop[:, ::-1], crop)


def distort(image, seed, view):
    """The colour part of the recipe for view "a" or "b".

    Args:
        image: float32 (size, size, 3) in grey levels.
        seed: int32 (2,).
        view: "a" or "b".

    Returns:
        float32 (size, size, 3) in grey levels.
    """
    seeds = tf.random.split(seed, 4)
    chance = tf.random.stateless_uniform([4], seeds[0])
    strength = tf.constant(JITTER_STRENGTH)
    factors = tf.random.stateless_uniform([4], seeds[1], -1.0, 1.0) * strength
    factors += tf.constant([1.0, 1.0, 1.0, 0.0])
    order = tf.argsort(tf.random.stateless_uniform([4], seeds[2]))
    sigma = tf.random.stateless_uniform([], seeds[3], *BLUR_SIGMA)

    def sometimes(probability, place, operation, image):
        if probability in (0.0, 1.0):
            return operation(image) if probability else image
        shape = image.shape
        image = tf.cond(
            chance[place] < probability, lambda: operation(image), lambda: image
        )
        return tf.ensure_shape(image, shape)

    image = sometimes(
        JITTER_PROBABILITY,
        0,
        lambda x: photometric.color_jitter(x, factors, order),
        image,
    )
    image = sometimes(GRAYSCALE_PROBABILITY, 1, photometric.grayscale, image)
    image = sometimes(
        BLUR_PROBABILITY[view], 2, lambda x: photometric.gaussian_blur(x, sigma), image
    )
    return sometimes(SOLARIZE_PROBABILITY[view], 3, photometric.solarize, image)


def _check_batch(source, batch_size, hosts):
    if not 0 < batch_size <= source.num_images:
        raise ValueError(
            "batch_size must be positive and no larger than the data set. Received: "
            f"batch_size={batch_size} for {source}. "
            f"Use {max(source.num_images, 1)} or less, or add images."
        )
    if batch_size % hosts:
        raise ValueError(
            f"batch_size is global and must divide by the {hosts} hosts. Received: "
            f"batch_size={batch_size}. Use {batch_size - batch_size % hosts}."
        )
