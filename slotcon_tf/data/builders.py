"""Sets of tensorflow-datasets, prepared already: opened by name, and as a source.

Imported where such a set is asked for: that alone takes a second.
"""

from __future__ import annotations

import difflib
import os
import pathlib
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import files_of
from slotcon_tf.data.source import SequentialSource


class BuilderSource(SequentialSource):
    """Images of a tensorflow-datasets builder, read in the order they are stored.

    Args:
        builder: A prepared builder with an `image` feature.
        split: Name of the split.
        **limits: Of `ImageSource`: `max_pixels`, `max_bad_share`, `pixel_range`.

    Example:
        >>> builder = prepared_builder("coco_captions", "/data")  # doctest: +SKIP
        >>> BuilderSource(builder, "train")  # doctest: +SKIP
        coco_captions/2014/1.1.0 (train): 82783 images
    """

    def __init__(self, builder: Any, split: str, **limits: Any) -> None:
        self.builder, self.split = builder, split
        count = split_size(builder, split)
        super().__init__(f"{builder.info.full_name} ({split})", count, **limits)

    def identity(self) -> ImageSet:
        """By version, split and number, and the shards' names, sizes and ends."""
        return builder_identity(self.builder, self.split)

    def stored(self) -> tf.data.Dataset:
        return self.builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        ).map(lambda example: example["image"])


def builder_identity(builder: Any, split: str) -> ImageSet:
    """What is known of a tensorflow-datasets split without reading it.

    Args:
        builder: A prepared one. Sets that are drawn, not downloaded, have the version
            of their drawing alone: encoders of images differ between machines.
        split: Of it, or a slice.

    Example:
        >>> from slotcon_tf.data.scenes import scenes_builder
        >>> builder_identity(scenes_builder(), "train")  # doctest: +SKIP
        3,000 images
    """
    settings = {"source": f"tfds {builder.info.full_name}", "split": split}
    count = split_size(builder, split)
    if getattr(builder, "drawn", False):
        return ImageSet(count, settings)
    parts = builder.info.splits[split].file_instructions
    found = files_of([part.filename for part in parts], builder.data_dir)
    return ImageSet(count, settings, **found)


def split_size(builder: Any, split: str) -> int:
    """Number of examples of a tensorflow-datasets split, or a slice of one.

    Raises:
        ValueError: If there is no such split.

    Example:
        >>> from slotcon_tf.data.scenes import scenes_builder
        >>> split_size(scenes_builder(), "train[:10%]")  # doctest: +SKIP
        300
    """
    try:
        return builder.info.splits[split].num_examples
    except (KeyError, ValueError):
        raise ValueError(
            f"split must be one of {', '.join(builder.info.splits)}, or a slice of "
            f"one. Received: {split!r} of {builder.info.full_name}."
        ) from None


def prepared_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """A tensorflow-datasets builder of images that is prepared already.

    Raises:
        FileNotFoundError: If it is not.
        ValueError: If there is no such set, or it has no images.

    Example:
        >>> prepared_builder("cat", None)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: tfds:NAME must name a set of tensorflow-datasets. ...
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(_unknown_set(name)) from None
    except (ValueError, KeyError, AssertionError, RuntimeError) as error:
        # Of a configuration, a version or a folder; what follows the line is long.
        raise ValueError(
            "tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.0.0 must name a set of "
            f"tensorflow-datasets. Received: tfds:{name}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    if "image" not in builder.info.features:
        raise ValueError(
            f"A tensorflow-datasets set must have an 'image' feature. Received: {name} "
            f"with {', '.join(builder.info.features)}."  # pyright: ignore[reportCallIssue, reportArgumentType]
        )
    if not pathlib.Path(builder.data_dir).is_dir():
        raise FileNotFoundError(
            f"tfds:{name} must be prepared in {builder.data_dir}. Received: no such "
            f"folder. Run: tfds build {name}"
        )
    return builder


def _unknown_set(name):
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, n=1)
    return (
        "tfds:NAME must name a set of tensorflow-datasets. Received: "
        f"tfds:{name}, which is none."
        + (
            f" Did you mean tfds:{near[0]}?"
            if near
            else " See tensorflow.org/datasets."
        )
    )
