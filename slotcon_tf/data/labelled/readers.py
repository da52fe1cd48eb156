"""Functions that read image, ids and label map's path by number: files, builders."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from slotcon_tf.data.extensions import is_image_file
from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import digest_of, files_of
from slotcon_tf.data.labelled.class_file import read_text
from slotcon_tf.data.labelled.decoding import (
    LabelError,
    Palettes,
    UprightImage,
    decode_ids,
    decode_panoptic_ids,
    read_bytes,
)
from slotcon_tf.data.labelled.taxonomies import NO_SEGMENT
from slotcon_tf.data.source import spaced
from slotcon_tf.images.pixels import PixelWatch
from slotcon_tf.images.statistics import PixelRange

Read = Callable[[int], tuple[np.ndarray, np.ndarray, str | os.PathLike[str]]]

# Names that tensorflow-datasets' sets give their label maps.
LABEL_FEATURES = (
    "segmentation_label",
    "segmentation_mask",
    "segmentation",
    "annotations",
    "label_map",
)


def kept_pairs(
    pairs: Sequence[tuple], image_list: str | None, most: int | None
) -> list[int]:
    """Numbers of the pairs that are kept, evenly spaced.

    Args:
        pairs: Of images and label maps, pathlib.Paths.
        image_list: Text file of names to keep, or None.
        most: Pairs that are kept at most, or None.

    Example:
        >>> kept_pairs([("a.jpg", "a.png")] * 9, None, 3)
        [0, 3, 6]
    """
    numbers = range(len(pairs))
    if image_list:
        # Written with folder and ending, or without.
        names = {
            pathlib.PurePath(name).stem if is_image_file(name) else name
            for name in read_text(image_list).split()
        }
        numbers = [i for i in numbers if pairs[i][0].stem in names]
        if len(numbers) < len(names):
            logging.warning(
                "%d of the %d names in %s have no image",
                len(names) - len(numbers),
                len(names),
                image_list,
            )
        if pairs and not numbers:
            raise LabelError(
                "`image_list` must name images of the data set. Received: "
                f"{image_list}, none of whose {len(names)} names is one. Write a name "
                f"per line, such as {pairs[0][0].stem}."
            )
    return [numbers[i] for i in spaced(most, len(numbers))] if numbers else []


def check_pairs(pairs: Sequence[tuple], kept: list[int], data_dir: object) -> None:
    """Checks that images and label maps are files.

    Raises:
        LabelError: If there are none, or some are missing.

    Example:
        >>> check_pairs([], [], "photos")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        slotcon_tf.data.labelled.decoding.LabelError: photos must hold ...
    """
    if not kept:
        raise LabelError(f"{data_dir} must hold images of this split. Received: none.")
    for place, what in ((0, "image"), (1, "label map")):
        missing = [pairs[i][place] for i in kept if not _is_file(pairs[i][place])]
        if missing:
            raise LabelError(
                f"Every image needs its label map. Received: {len(missing)} of "
                f"{len(kept)} pairs without {what}, the first {missing[0]}. Complete "
                "the data, or name the whole pairs in a list (dataset=list)."
            )


def file_identity(found: Any, kept: list[int], data_dir: Any) -> ImageSet:
    """What is known of pairs of files; see `ImageSet`.

    Args:
        found, kept: As for `file_reader`.
        data_dir: Folder, or the list that names the files.

    Example:
        >>> from slotcon_tf.data.labelled.layouts import SplitFiles
        >>> pairs = SplitFiles([(pathlib.Path("x/a.jpg"), pathlib.Path("x/a.png"))])
        >>> file_identity(pairs, [0], "x").names
        ['a.jpg', 'a.png']
    """
    root = os.path.dirname(data_dir) if os.path.isfile(data_dir) else data_dir
    # As pathlib writes what is below it.
    root = os.fspath(pathlib.Path(root))
    files = files_of(
        [path for i in kept for path in found.pairs[i]], "" if root == "." else root
    )
    segments = [sorted(found.segments[i].items()) for i in kept if found.segments]
    labels = digest_of(
        np.array([n for s in segments for p in s for n in p], "<i8").tobytes()
    )
    return ImageSet(len(kept), {"source": "files"}, **files, labels=labels)


def file_reader(
    found: Any,
    kept: list[int],
    named: bool,
    pixel_range: PixelRange | None = None,
) -> Read:
    """Reads pairs of files.

    Args:
        found: `layouts.SplitFiles`.
        kept: Numbers of its pairs.
        named: Whether somebody has named the ids; if not, palettes must agree.
        pixel_range: Of images of more than 8 bits.

    Returns:
        Function of 0 .. len(kept) - 1 to image, ids and the label map's path.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from slotcon_tf.data.labelled.layouts import SplitFiles
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (4, 3)).save(folder / "a.png")
        >>> Image.new("L", (4, 3), 7).save(folder / "ids.png")
        >>> found = SplitFiles([(folder / "a.png", folder / "ids.png")])
        >>> image, ids, _ = file_reader(found, [0], named=True)(0)
        >>> image.shape, np.unique(ids).tolist()
        ((3, 4, 3), [7])
    """
    watch, palettes = PixelWatch(found.pairs[kept[0]][0].parent), Palettes()

    def read(index):
        image_path, label_path = found.pairs[kept[index]]
        image = UprightImage(read_bytes(image_path), image_path, watch, pixel_range)
        labels = read_bytes(label_path)
        if found.segments:
            label_map = decode_panoptic_ids(labels, label_path)
            segments = found.segments[kept[index]]
            label_map.ids = _categories(label_map.ids, segments, label_path)
        else:
            label_map = decode_ids(labels, label_path)
            if not named:
                palettes.look(label_map)
        return image.pixels, label_map.beside(image), label_path

    return read


def _categories(ids, segments, path):
    found, place = np.unique(ids, return_inverse=True)
    strange = [i for i in found.tolist() if i and i not in segments]
    if strange:
        raise LabelError(
            f"Segments of {path} must be described in the JSON file. Received: "
            f"{strange[:3]}. The PNGs and the JSON are of different versions."
        )
    segments = {0: NO_SEGMENT, **segments}
    values = np.array([segments[i] for i in found.tolist()], np.int32)
    return values[place].reshape(ids.shape)


def builder_names(builder: Any) -> list[str] | None:
    """Names of the classes 0, 1 ... of a tensorflow-datasets set, or None.

    Example:
        >>> from slotcon_tf.data.scenes import Scenes
        >>> builder_names(Scenes())[:2]
        ['sky', 'grass']
    """
    from slotcon_tf.data.builders import tfds

    names = (builder.info.metadata or {}).get("categories")
    feature = dict(builder.info.features).get(_label_feature(builder))
    if not names and isinstance(feature, tfds.features.LabeledImage):
        names = feature.names if feature.num_classes else None
    return names


def builder_reader(
    builder: Any, split: str, most: int | None, pixel_range: PixelRange | None = None
) -> tuple[Read, int]:
    """Examples of a tensorflow-datasets set; what was read stays, still encoded.

    Args:
        builder: A prepared one.
        split: Its images.
        most: Evenly spaced images that are kept, None for all.
        pixel_range: Of images of more than 8 bits.

    Returns:
        As `file_reader`, and the number of images.

    Example:
        >>> from slotcon_tf.data.scenes import scenes_builder
        >>> read, count = builder_reader(scenes_builder(), "test", 3)  # doctest: +SKIP
        >>> image, ids, path = read(0)  # doctest: +SKIP
    """
    from slotcon_tf.data.builders import split_size, tfds

    count = split_size(builder, split)
    features = builder.info.features
    feature = _label_feature(builder)
    if feature is None:
        raise LabelError(
            f"{builder.info.full_name} must have a label map, one of "
            f"{', '.join(LABEL_FEATURES)}. Received: {', '.join(features)}."
        )
    decoders = {
        "image": tfds.decode.SkipDecoding(),
        feature: tfds.decode.SkipDecoding(),
    }
    read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(
        split=split, shuffle_files=False, decoders=decoders, read_config=read_config
    )
    kept, encoded = spaced(most, count), {}
    examples = enumerate(dataset.as_numpy_iterator())
    watch = PixelWatch(builder.info.full_name)

    def read(index):
        number = kept[index]
        while number not in encoded:
            place, example = next(examples)
            encoded[place] = example["image"], example[feature]
        data, labels = encoded[number]
        path = f"{builder.info.full_name} ({split}) {number}"
        image = UprightImage(data, path, watch, pixel_range)
        label_map = decode_ids(labels, f"{path}, {feature}")
        return image.pixels, label_map.beside(image), path

    return read, len(kept)


def _label_feature(builder):
    return next((n for n in LABEL_FEATURES if n in builder.info.features), None)


def _is_file(path):
    """Whether a path is a file, and no folder, pipe or device."""
    try:
        return os.path.isfile(path)
    except ValueError:  # a zero byte
        return False
