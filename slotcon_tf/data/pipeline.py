"""crop_pair_dataset: from a source of images to batches of two views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.data import photometric
from slotcon_tf.data.crops import NUMBERS_PER_PAIR, crop_views, turned_views
from slotcon_tf.data.passes import EACH, pass_length, passes, positions, unconverted
from slotcon_tf.data.recipe import NUMBERS, distortions, draw_numbers, draw_turns
from slotcon_tf.data.sources import source_of
from slotcon_tf.images.statistics import chosen_statistics
from slotcon_tf.python_calls import ended_at_exit

_CHUNK = 16  # images whose colours are changed by one call: more are slower
AUGMENT_ON = ("host", "device")


def crop_pair_dataset(
    source: Any,
    *,
    batch_size: int,
    image_size: int = 224,
    min_scale: float = 0.08,
    seed: int = 0,
    start_step: int = 0,
    epochs: int | str | None = EACH,
    shuffle: bool = True,
    augment_on: str = "host",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    vertical_flip: bool = False,
    rotate90: bool = False,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Batches of two augmented views of each image, ready for `SlotCon.fit`.

    Every choice is a function of (seed, position in the stream) alone: neither threads
    nor hosts nor the step where the stream starts change a batch. An epoch holds
    `source.num_images // batch_size` steps; what is left over changes every epoch.

    A pass over the dataset is one epoch, as `fit` wants it, and the next pass goes on
    in the stream where the one before ended: every epoch of `fit`, and of a second
    `fit`, draws other views, and a script that is run again draws the same. Passes are
    numbered as their first batches are asked for: a look at `next(iter(dataset))` is a
    pass too, two iterators side by side are two passes, and each host counts its own.

    Args:
        source: From `open_source`, or whatever `open_images` takes: a folder, a list,
            an array, a sequence, a tf.data.Dataset.
        batch_size: Images per step over all replicas and hosts.
        image_size: Edge of the square views, pixels.
        min_scale: Smallest area of a crop, as a share of the image's.
        seed: Of the run.
        start_step: The stream begins with this step's batch.
        epochs: "each" for one epoch a pass; a number for what `start_step` leaves of a
            run of so many epochs; None for an endless stream, whose every pass begins
            at `start_step`.
        shuffle: Whether every epoch has an order of its own.
        augment_on: "host": the dataset changes the colours; "device": the training
            step does, and the dataset yields what it needs.
        mean, std: What the views are normalised with, three shares of 255 each; None
            for ImageNet's. Give `SlotCon` the same.
        vertical_flip: Whether each view is also turned upside down, half of the time.
        rotate90: Whether each view is also turned by 0 to 3 quarters. Both are for
            pictures without an upright, taken from above or through a microscope.
        input_context: tf.distribute.InputContext of this host; it then yields its
            share of every global batch.

    Returns:
        tf.data.Dataset of dicts, its cardinality known: view_a, view_b float32
        (B, size, size, 3), normalised; overlap_a, overlap_b float32 (B, 4) as
        `crops.overlap_boxes` has them; flipped_a, flipped_b bool (B,). With
        vertical_flip or rotate90 also upended_a, upended_b, transposed_a, transposed_b
        bool (B,), as `crops.turned_views` has them.
        With augment_on="device" the views are uint8, and distortion_a, distortion_b
        hold the parameters of `photometric.distort`.

    Raises:
        ValueError: If the batch exceeds the source or does not divide by the hosts, or
            another argument is none of those above.

    Example:
        >>> from slotcon_tf.data import open_source
        >>> source = open_source("fake")
        >>> options = {"image_size": 32, "augment_on": "device"}
        >>> batches = crop_pair_dataset(source, batch_size=4, **options)
        >>> batch = next(iter(batches))
        >>> batch["view_a"].shape, batch["overlap_a"].shape
        (TensorShape([4, 32, 32, 3]), TensorShape([4, 4]))

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A.
    """
    _check_settings(
        batch_size=(batch_size, 1),
        image_size=(image_size, 1),
        seed=(seed, None),
        start_step=(start_step, 0),
    )
    if not 0 < min_scale <= 1:
        raise ValueError(
            "min_scale must be a share of an image's area, above 0, 1 at most. "
            f"Received: min_scale={min_scale}."
        )
    source = source_of(source)
    if augment_on not in AUGMENT_ON:
        raise ValueError(
            f"augment_on must be one of {', '.join(AUGMENT_ON)}. "
            f"Received: {augment_on!r}."
        )
    source.bad.at_random = shuffle and not source.in_order
    statistics = chosen_statistics(None, mean=mean, std=std)
    hosts = input_context.num_input_pipelines if input_context else 1
    host = input_context.input_pipeline_id if input_context else 0
    _check_batch(source, batch_size, hosts)
    steps = source.num_images // batch_size
    length = pass_length(epochs, steps, start_step)

    def from_step(step):
        return positions(source, steps * batch_size, seed, shuffle, step * batch_size)

    stream = passes(from_step, start_step, length, batch_size)
    local = batch_size // hosts
    if hosts > 1:
        stream = stream.filter(lambda p, *_: (p % batch_size) // local == host)

    @unconverted
    def views(position, *item):
        numbers, turns = draw_numbers(seed, position), None
        if vertical_flip or rotate90:
            turns = draw_turns(seed, position, vertical_flip, rotate90)
        return _views(source, numbers, turns, item, image_size, min_scale)

    @unconverted
    def distorted(batch):
        parameters = distortions(batch.pop("numbers"))
        return batch | {
            f"distortion_{view}": photometric.with_statistics(
                parameters[view], statistics
            )
            for view in "ab"
        }

    @unconverted
    def coloured(batch):
        return photometric.apply_distortions(distorted(batch))

    stream = stream.map(views, tf.data.AUTOTUNE, deterministic=True)
    if augment_on == "device":
        stream = stream.batch(local, drop_remainder=True).map(distorted)
    else:
        chunk = max(n for n in range(1, _CHUNK + 1) if local % n == 0)
        stream = stream.batch(chunk, drop_remainder=True).map(
            coloured, tf.data.AUTOTUNE, deterministic=True
        )
        if chunk < local:
            stream = stream.rebatch(local, drop_remainder=True)
    stream = stream.prefetch(tf.data.AUTOTUNE)
    if length is None:
        return stream
    return stream.apply(tf.data.experimental.assert_cardinality(length))


def _views(source, numbers, turns, item, image_size, min_scale):
    """An image's two views before their colours are changed, as a dict of tensors."""
    names = ("flipped",) if turns is None else ("flipped", "upended", "transposed")

    @ended_at_exit
    def cut(numbers, turns, *item):
        image = source.load(*item)
        options = (numbers[:NUMBERS_PER_PAIR], image_size, min_scale)
        if len(names) == 1:
            return crop_views(image, *options)
        return turned_views(image, *options, turns)

    views, overlaps, *marks = tf.numpy_function(
        cut,
        [numbers, () if turns is None else turns, *item],
        (tf.uint8, tf.float32, *[tf.bool] * len(names)),
        stateful=False,
    )
    views = tf.ensure_shape(views, [2, image_size, image_size, 3])
    overlaps = tf.ensure_shape(overlaps, [2, 4])
    example = {"numbers": tf.ensure_shape(numbers, [NUMBERS])}
    for index, view in enumerate("ab"):
        example[f"view_{view}"] = views[index]
        example[f"overlap_{view}"] = overlaps[index]
        for name, mark in zip(names, marks, strict=True):
            example[f"{name}_{view}"] = tf.ensure_shape(mark, [2])[index]
    return example


def _check_settings(**settings):
    """Raises ValueError unless each value is a whole number from its least on."""
    for name, (value, least) in settings.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or (least is not None and value < least):
            size = " Views are square: give their edge." if name == "image_size" else ""
            bound = "" if least is None else f" from {least}"
            raise ValueError(
                f"{name} must be a whole number{bound}. Received: {name}={value!r}."
                f"{size}"
            )


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
