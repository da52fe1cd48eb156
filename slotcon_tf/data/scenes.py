"""Scenes: a tensorflow-datasets builder that draws its images offline."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import pathlib
import sys
from typing import Any, TextIO

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from slotcon_tf import processor
from slotcon_tf.data.drawing import CATEGORIES, THINGS, draw_scene, draw_things
from slotcon_tf.data.reading import remote_errors
from slotcon_tf.errors import first_line
from slotcon_tf.progress import bar

HEIGHT, WIDTH = 144, 192  # pixels
NUM_TRAIN, NUM_TEST = 3000, 200
JPEG_QUALITY = 92  # a quarter of the bytes of PNG, which sensor noise makes large


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Procedural scenes with the true category of every pixel.

    Up to six textured things of ten categories over two or three backgrounds of four,
    with overlap, shading and noise. No download: every image is drawn from a seed
    made of its split and number. Splits: `train` (3,000) and `test` (200).

    Features: `image` uint8 (144, 192, 3), RGB; `segmentation` uint8 (144, 192, 1),
    indices into `CATEGORIES`, which are also `info.metadata["categories"]`.

    Example:
        >>> Scenes().info.features["image"].shape
        (144, 192, 3)
    """

    drawn = True  # its version says what its images are
    seeds = {"train": 0, "test": 1}  # of the splits
    # File that progress is told in; standard error if None.
    shown_on: TextIO | None = None
    # Raise it with every change of the drawing: tfds goes on reading what it prepared.
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {
        "1.0.0": "First version, 120x160.",
        "2.0.0": "144x192, JPEG; things stand where they belong.",
    }

    def _info(self):
        features = {
            "image": tfds.features.Image(
                shape=(HEIGHT, WIDTH, 3), encoding_format="jpeg"
            ),
            "segmentation": tfds.features.Image(
                shape=(HEIGHT, WIDTH, 1), encoding_format="png"
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Procedural scenes. Categories: " + ", ".join(CATEGORIES) + ".",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(categories=list(CATEGORIES)),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {
            "train": self._generate_examples("train", NUM_TRAIN),
            "test": self._generate_examples("test", NUM_TEST),
        }

    def _generate_examples(self, split, count):
        def example(index):
            return self.drawn_from(np.random.default_rng([self.seeds[split], index]))

        # NumPy and Pillow let other threads draw meanwhile.
        with concurrent.futures.ThreadPoolExecutor(processor.cores()) as threads:
            examples = threads.map(example, range(count))
            told = {"total": count, "desc": f"draw {split}", "unit": "scene"}
            yield from enumerate(bar(examples, file=self.shown_on, **told))

    def drawn_from(self, rng: np.random.Generator) -> dict[str, Any]:
        """An example, encoded: tfds would run a TensorFlow session for each image."""
        image, mask = draw_scene(rng, HEIGHT, WIDTH)
        return {
            "image": _encoded(image, "JPEG", quality=JPEG_QUALITY),
            "segmentation": _encoded(mask, "PNG"),
        }


class SceneObjects(Scenes):
    """Procedural scenes with several things of a kind, and the mask of each.

    As `Scenes`, of other seeds and in a folder of its own.

    Features: `image` uint8 (144, 192, 3), RGB; `objects`, of each thing its `bbox`
    (tight around what is seen of it), its `label`, a number of `THINGS`, and
    `segmentation` uint8 (144, 192, 1), 255 where it is seen: the layout of LVIS in
    tensorflow-datasets.

    Example:
        >>> SceneObjects().info.features["objects"].feature["label"].names[:2]
        ['tree', 'house']
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    seeds = {"train": 2, "test": 3}

    def _info(self):
        size = (HEIGHT, WIDTH)
        thing = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=THINGS),
            "segmentation": tfds.features.Image(
                shape=(*size, 1), encoding_format="png"
            ),
        }
        features = {
            "image": tfds.features.Image(shape=(*size, 3), encoding_format="jpeg"),
            "objects": tfds.features.Sequence(thing),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Procedural scenes of things: {', '.join(THINGS)}.",
            features=tfds.features.FeaturesDict(features),
        )

    def drawn_from(self, rng: np.random.Generator) -> dict[str, Any]:
        image, things = draw_things(rng, HEIGHT, WIDTH)
        objects = [
            {
                "bbox": _tight(shown),
                "label": kind,
                "segmentation": _encoded(np.uint8(shown) * 255, "PNG"),
            }
            for kind, shown in things
        ]
        image = _encoded(image, "JPEG", quality=JPEG_QUALITY)
        return {"image": image, "objects": objects}


@remote_errors("The folder of the scenes")
def scenes_builder(
    data_dir: str | os.PathLike[str] | None = None, kind: type[Scenes] = Scenes
) -> Scenes:
    """The builder, its images drawn and written if they were not yet.

    Quiet, and without a network. A preparation that was cut off leaves nothing that
    counts as prepared: tfds writes aside and renames. Of two processes that prepare at
    the same time, both end with the images of the first.

    Args:
        data_dir: tensorflow-datasets' folder; None for its default.
        kind: `Scenes`, or `SceneObjects`.

    Returns:
        A prepared builder.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If it holds scenes without their description, or not all of them.

    Example:
        >>> scenes_builder().info.splits["train"].num_examples  # doctest: +SKIP
        3000
    """
    builder = _opened(data_dir, kind)
    folder = pathlib.Path(builder.data_dir)
    if folder.is_dir():
        return builder
    logging.info("Drawing %d scenes into %s", NUM_TRAIN + NUM_TEST, folder)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.shown_on = sys.stderr
    quiet = io.StringIO()  # tfds prints, and has no switch for it
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            builder.download_and_prepare(download_config=config)
    except (OSError, tf.errors.OpError):
        # Another process may have renamed its folder to this place first.
        if not folder.is_dir():
            raise
    return _opened(data_dir, kind)


def _opened(data_dir: str | os.PathLike[str] | None, kind: type[Scenes]) -> Scenes:
    """The builder; if its folder is there, with all that was written into it."""
    try:
        builder = kind(data_dir=data_dir)
        folder = pathlib.Path(builder.data_dir)
        trouble = _trouble(builder) if folder.exists() else ""
    except (OSError, tf.errors.UnimplementedError):
        raise  # no damage: no right, or no way to where it lies
    except Exception as error:  # noqa: BLE001  whatever a damaged description raises
        folder = pathlib.Path(kind.name, str(kind.VERSION))
        default = tfds.core.constants.DATA_DIR  # pyright: ignore[reportAttributeAccessIssue]
        folder = pathlib.Path(data_dir or default) / folder
        reason = first_line(error, 100).rstrip(".")
        trouble = f"a description that cannot be read ({reason})"
    if trouble:
        raise ValueError(
            f"{folder} must hold the scenes that were drawn into it. Received: "
            f"{trouble}. Delete that folder: they are drawn again."
        )
    return builder


def _trouble(builder: Scenes) -> str:
    """What is wrong with a builder's folder, if anything."""
    if not pathlib.Path(builder.data_dir).is_dir():
        return "a file"
    splits = builder.info.splits
    if not {*builder.seeds} <= {*splits}:
        return "no description of them, dataset_info.json"
    for split in (splits[name] for name in builder.seeds):
        files = [pathlib.Path(path) for path in split.filepaths]
        lost = [path.name for path in files if not path.is_file()]
        if lost:
            return f"no {lost[0]}"
        if sum(path.stat().st_size for path in files) < split.num_bytes:
            return f"a part of {files[0].name}"
    return ""


def load_scenes(
    split: str, data_dir: str | os.PathLike[str] | None = None
) -> tf.data.Dataset:
    """The examples of a split, in the order they are stored.

    Args:
        split: "train" or "test", or a slice of one such as "test[:64]".
        data_dir: tensorflow-datasets' folder; None for its default.

    Returns:
        Dataset of dicts: `image` uint8 (144, 192, 3) and `segmentation` uint8
        (144, 192, 1).

    Example:
        >>> example = next(iter(load_scenes("test")))  # doctest: +SKIP
        >>> example["image"].shape  # doctest: +SKIP
        TensorShape([144, 192, 3])
    """
    builder: Any = scenes_builder(data_dir)
    return builder.as_dataset(split=split, shuffle_files=False)


def scenes_arrays(
    split: str, data_dir: str | os.PathLike[str] | None = None, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks of a split as arrays, in the order they are stored.

    Args:
        split: "train" or "test".
        data_dir: tensorflow-datasets' folder; None for its default.
        limit: Take the first `limit` only.

    Returns:
        Tuple of images uint8 (N, 144, 192, 3) and masks uint8 (N, 144, 192).

    Example:
        >>> images, masks = scenes_arrays("test", limit=8)  # doctest: +SKIP
        >>> images.shape  # doctest: +SKIP
        (8, 144, 192, 3)
    """
    dataset = load_scenes(split, data_dir)
    if limit is not None:
        dataset = dataset.take(limit)
    rows = list(tfds.as_numpy(dataset))
    images = np.stack([row["image"] for row in rows])
    return images, np.stack([row["segmentation"][..., 0] for row in rows])


def _encoded(pixels, encoding, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding, **options)
    file.seek(0)
    return file


def _tight(shown):
    """The box around what is True, as tensorflow-datasets has them."""
    (rows,), (columns,) = np.nonzero(shown.any(1)), np.nonzero(shown.any(0))
    height, width = shown.shape
    return tfds.features.BBox(
        ymin=rows[0] / height,
        xmin=columns[0] / width,
        ymax=(rows[-1] + 1) / height,
        xmax=(columns[-1] + 1) / width,
    )
