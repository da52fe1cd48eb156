"""Packs images into TFRecord shards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import reason_of
from slotcon_tf.data.records import INDEX, shard_name, write_index, write_shard
from slotcon_tf.data.sources import open_files
from slotcon_tf.data.stored_sources import FileSource
from slotcon_tf.images import BadImage, decode_image
from slotcon_tf.progress import bar
from slotcon_tf.runs.settings import SettingError, setting
from slotcon_tf.runs.source_settings import FileSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig(FileSettings):
    """What is packed, and where to; see `prepare`.

    Example:
        >>> PrepareConfig(data_dir="photos", output="shards").shards
        64
    """

    output: str = setting(None, "New folder of the shards.")
    shards: int = setting(64, "Number of shards.", low=1)


def prepare(config: PrepareConfig) -> tuple[int, int]:
    """Writes the shards: the images' bytes as they are, without the bad ones.

    Args:
        config: What is packed.

    Returns:
        Numbers of images written and left out.

    Raises:
        SettingError: If `output` holds shards.
        ValueError, OSError: If there are no images, or files cannot be read or written.

    Example:
        >>> import pathlib, tempfile
        >>> import keras, numpy as np
        >>> photos, shards = tempfile.mkdtemp(), tempfile.mkdtemp()
        >>> photo = np.zeros((8, 8, 3), "uint8")
        >>> keras.utils.save_img(pathlib.Path(photos) / "a.png", photo)
        >>> prepare(PrepareConfig(data_dir=photos, output=shards))  # doctest: +ELLIPSIS
        1 images in ..., 0 bad ones left out
        (1, 0)
    """
    if tf.io.gfile.exists(os.path.join(config.output, INDEX)):
        raise SettingError(
            f"`output` must be a folder without shards. Received: {config.output}, "
            "which has some. Take another folder."
        )
    source = open_files(config.dataset, config.data_dir, **config.limits())
    tf.io.gfile.makedirs(config.output)
    shards = min(config.shards, source.num_images)
    numbers = np.arange(source.num_images)
    places, bad = [], []
    with bar(total=source.num_images, unit="image", desc="prepare") as progress:
        for shard, part in enumerate(np.array_split(numbers, shards)):
            path = os.path.join(config.output, shard_name(shard, shards))
            places.append(write_shard(path, _good(source, part, progress, bad)))
    written = sum(map(len, places))
    if not written:
        for shard in range(shards):
            tf.io.gfile.remove(os.path.join(config.output, shard_name(shard, shards)))
        raise ValueError(
            f"{source.name} must hold images that can be decoded. Received: none. "
            "slotcon-check-data says what is wrong with them."
        )
    write_index(config.output, places)
    print(f"{written} images in {config.output}, {len(bad)} bad ones left out")
    return written, len(bad)


def _good(
    source: FileSource, numbers: np.ndarray, progress: Any, bad: list[str]
) -> Iterator[tuple[str, bytes]]:
    for number in numbers.tolist():
        path = str(source.paths[number])
        progress.update()
        try:
            data = source.read_patiently(number)
            decode_image(data, source.max_pixels, source.pixel_range)
        except (BadImage, OSError, tf.errors.OpError) as error:
            bad.append(path)
            logging.warning("Left out %s: %s", printable(path), reason_of(error))
            continue
        yield printable(os.path.basename(path)), data
