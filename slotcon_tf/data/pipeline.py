"""crop_pair_dataset: from a source of images to batches of two views."""

import tensorflow as tf

from slotcon_tf.data import photometric
from slotcon_tf.data.crops import NUMBERS_PER_PAIR, crop_views
from slotcon_tf.data.recipe import NUMBERS, distortions, draw_numbers
from slotcon_tf.data.sources import source_of

_CHUNK = 16  # images whose colours are changed by one call: more are slower
AUGMENT_ON = ("host", "device")


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
    augment_on="host",
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
        augment_on: "host": the dataset changes the colours; "device": the training
            step does, and the dataset yields what it needs.
        input_context: tf.distribute.InputContext of this host; it then yields its
            share of every global batch.

    Returns:
        tf.data.Dataset of dicts: view_a, view_b float32 (B, size, size, 3), normalised
        with ImageNet's mean and standard deviation; overlap_a, overlap_b float32
        (B, 4) as `crops.overlap_boxes` has them; flipped_a, flipped_b bool (B,).
        With augment_on="device" the views are uint8, and distortion_a, distortion_b
        hold the parameters of `photometric.distort`.

    Raises:
        ValueError: If the batch exceeds the source or does not divide by the hosts.

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A.
    """
    source = source_of(source)
    if augment_on not in AUGMENT_ON:
        raise ValueError(
            f"augment_on must be one of {', '.join(AUGMENT_ON)}. "
            f"Received: {augment_on!r}."
        )
    hosts = input_context.num_input_pipelines if input_context else 1
    host = input_context.input_pipeline_id if input_context else 0
    _check_batch(source, batch_size, hosts)
    steps = source.num_images // batch_size

    stream = _positions(
        source, steps * batch_size, seed, shuffle, start_step * batch_size
    )
    if epochs is not None:
        stream = stream.take(max(epochs * steps - start_step, 0) * batch_size)
    local = batch_size // hosts
    if hosts > 1:
        stream = stream.filter(lambda p, *_: (p % batch_size) // local == host)

    def views(position, *item):
        return _views(source, draw_numbers(seed, position), item, image_size, min_scale)

    stream = stream.map(views, tf.data.AUTOTUNE, deterministic=True)
    if augment_on == "device":
        stream = stream.batch(local, drop_remainder=True).map(_with_distortions)
    else:
        chunk = max(n for n in range(1, _CHUNK + 1) if local % n == 0)
        stream = stream.batch(chunk, drop_remainder=True).map(
            lambda batch: photometric.apply_distortions(_with_distortions(batch)),
            tf.data.AUTOTUNE,
            deterministic=True,
        )
        if chunk < local:
            stream = stream.rebatch(local, drop_remainder=True)
    return stream.prefetch(tf.data.AUTOTUNE)


def _positions(source, per_epoch, seed, shuffle, start):
    """Endless dataset of (position, item): an image's number, or (number, bytes)."""

    def key(epoch):
        return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])

    if not hasattr(source, "examples"):

        def item(position):
            index = position % per_epoch
            if shuffle:
                last = tf.constant(source.num_images - 1, tf.int64)
                index = tf.random.experimental.index_shuffle(
                    index, key(position // per_epoch), last
                )
            return position, index

        return tf.data.Dataset.range(start, tf.int64.max).map(item)

    # AutoGraph cannot read tfds's decorated methods, and has nothing to convert here.
    @tf.autograph.experimental.do_not_convert
    def epoch(number):
        examples = source.examples(key(number) if shuffle else None).take(per_epoch)
        first = number * per_epoch
        positions = tf.data.Dataset.range(first, first + per_epoch)
        return tf.data.Dataset.zip(positions, examples).map(lambda p, item: (p, *item))

    first_epoch, skipped = divmod(start, per_epoch)
    stream = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
    return stream.skip(skipped)


def _views(source, numbers, item, image_size, min_scale):
    """An image's two views before their colours are changed, as a dict of tensors."""

    def cut(numbers, *item):
        image = source.load(*item)
        return crop_views(image, numbers[:NUMBERS_PER_PAIR], image_size, min_scale)

    views, overlaps, flipped = tf.numpy_function(
        cut, [numbers, *item], (tf.uint8, tf.float32, tf.bool), stateful=False
    )
    views = tf.ensure_shape(views, [2, image_size, image_size, 3])
    overlaps = tf.ensure_shape(overlaps, [2, 4])
    flipped = tf.ensure_shape(flipped, [2])
    example = {"numbers": tf.ensure_shape(numbers, [NUMBERS])}
    for index, view in enumerate("ab"):
        example[f"view_{view}"] = views[index]
        example[f"overlap_{view}"] = overlaps[index]
        example[f"flipped_{view}"] = flipped[index]
    return example


def _with_distortions(batch):
    parameters = distortions(batch.pop("numbers"))
    return batch | {f"distortion_{view}": parameters[view] for view in "ab"}


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
