"""Packs images into TFRecord shards."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import read_file, reason_of
from slotcon_tf.data.records import INDEX, shard_name, write_index, write_shard
from slotcon_tf.data.sources import open_files
from slotcon_tf.data.stored_sources import FileSource
from slotcon_tf.extras import needed
from slotcon_tf.images import BadImage, decode_image
from slotcon_tf.progress import bar
from slotcon_tf.runs.beam import HELP, run_pipeline
from slotcon_tf.runs.settings import SettingError, setting
from slotcon_tf.runs.source_settings import FileSettings

_MOST_BYTES = 2**31  # of a shard's list


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig(FileSettings):
    """What is packed, and where to; see `prepare`.

    Example:
        >>> PrepareConfig(data_dir="photos", output="shards").shards
        64
    """

    output: str = setting(None, "New folder of the shards.")
    shards: int = setting(64, "Number of shards.", low=1)
    beam: str | None = setting(None, HELP)


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
    parts = np.array_split(np.arange(source.num_images), shards)
    paths = [os.path.join(config.output, shard_name(i, shards)) for i in range(shards)]
    if config.beam is None:
        places, bad = _here(source, parts, paths)
    else:
        places, bad = _with_beam(config.beam, source, parts, paths)
    written = sum(map(len, places))
    if not written:
        for path in paths:
            tf.io.gfile.remove(path)
        raise ValueError(
            f"{source.name} must hold images that can be decoded. Received: none. "
            "slotcon-check-data says what is wrong with them."
        )
    write_index(config.output, places)
    print(f"{written} images in {config.output}, {bad} bad ones left out")
    return written, bad


def _here(source, parts, paths):
    """Where the records of each shard lie, and the number of bad images."""
    places, bad = [], []
    with bar(total=source.num_images, unit="image", desc="prepare") as progress:
        for part, path in zip(parts, paths, strict=True):
            found = _good(source, part, progress.update, bad)
            places.append(write_shard(path, found))
    return places, len(bad)


def _with_beam(options, source, parts, paths):
    """As `_here`; each shard by one of Beam's workers."""
    with needed("beam"):
        import apache_beam as beam
    limits = {"max_pixels": source.max_pixels, "pixel_range": source.pixel_range}
    # A pipeline is small: what is large lies beside the shards while it runs.
    for part, path in zip(parts, paths, strict=True):
        with tf.io.gfile.GFile(f"{path}.list", "w") as file:
            file.write(json.dumps([source.paths[number] for number in part]))

    def build(pipeline):
        shards = (
            pipeline | "Shards" >> beam.Create(paths) | "Spread" >> beam.Reshuffle()
        )
        _ = shards | "Pack" >> beam.Map(pack_shard, limits)

    run_pipeline(options, build)
    places = []
    for path in paths:
        data = read_file(f"{path}.places", _MOST_BYTES)
        places.append(np.load(io.BytesIO(data)))
        for ending in (".list", ".places"):
            tf.io.gfile.remove(path + ending)
    return places, source.num_images - sum(map(len, places))


def pack_shard(path: str, limits: Mapping[str, Any]) -> None:
    """Writes a shard of the images that `<path>.list` names; bad ones are left out.

    Where its records lie is kept in `<path>.places` for the index.

    Args:
        path: Of the new shard.
        limits: Of `FileSource`.

    Example:
        >>> import pathlib, tempfile
        >>> path = f"{tempfile.mkdtemp()}/{shard_name(0, 1)}"
        >>> _ = pathlib.Path(f"{path}.list").write_text('["no.jpg"]')
        >>> pack_shard(path, {})
        >>> np.load(f"{path}.places").shape
        (0, 2)
    """
    images = json.loads(read_file(f"{path}.list", _MOST_BYTES))
    source = FileSource(images, path, **limits)
    places = write_shard(path, _good(source, np.arange(len(images)), _nothing, []))
    packed = io.BytesIO()
    np.save(packed, places)
    with tf.io.gfile.GFile(f"{path}.places", "wb") as file:
        file.write(packed.getvalue())


def _nothing():
    pass


def _good(
    source: FileSource, numbers: np.ndarray, told: Callable[[], Any], bad: list[str]
) -> Iterator[tuple[str, bytes]]:
    for number in numbers.tolist():
        path = str(source.paths[number])
        told()
        try:
            data = source.read_patiently(number)
            decode_image(data, source.max_pixels, source.pixel_range)
        except (BadImage, OSError, tf.errors.OpError) as error:
            bad.append(path)
            logging.warning("Left out %s: %s", printable(path), reason_of(error))
            continue
        yield printable(os.path.basename(path)), data
