"""Scenes: a tensorflow-datasets builder that draws its images offline."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from slotcon_tf.data.drawing import CATEGORIES, draw_scene

HEIGHT, WIDTH = 120, 160  # pixels
NUM_TRAIN, NUM_TEST = 2000, 200
_SPLIT_SEEDS = {"train": 0, "test": 1}


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Procedural scenes with the true category of every pixel.

    Three to six textured things of ten categories over one to three backgrounds of
    four, with overlap, shading and noise. No download: every image is drawn from a
    seed made of its split and number. Splits: `train` (2,000) and `test` (200).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self):
        features = {
            # PNG: at this size the artefacts of JPEG would be a texture of their own.
            "image": tfds.features.Image(
                shape=(HEIGHT, WIDTH, 3), encoding_format="png"
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
        for index in range(count):
            rng = np.random.default_rng([_SPLIT_SEEDS[split], index])
            image, mask = draw_scene(rng, HEIGHT, WIDTH)
            yield index, {"image": image, "segmentation": mask[..., None]}


def scenes_builder(data_dir: str | None = None) -> Scenes:
    """The builder, its images drawn and written if they were not yet.

    Args:
        data_dir: tensorflow-datasets' folder; None for its default.

    Returns:
        A prepared `Scenes`. A preparation that was cut off leaves nothing that counts
        as prepared: tfds writes aside and renames.
    """
    builder = Scenes(data_dir=data_dir)
    if not pathlib.Path(builder.data_dir).is_dir():
        logging.info("Drawing %d scenes into %s", NUM_TRAIN + NUM_TEST, builder.data_dir)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return builder


def load_scenes(split: str, data_dir: str | None = None, limit: int | None = None):
    """Images and masks of a split as arrays, in a fixed order.

    Args:
        split: "train" or "test".
        data_dir: tensorflow-datasets' folder; None for its default.
        limit: Take the first `limit` only.

    Returns:
        Tuple of images uint8 (N, 120, 160, 3) and masks uint8 (N, 120, 160).
    """
    dataset = scenes_builder(data_dir).as_dataset(split=split, shuffle_files=False)
    dataset = dataset.take(limit) if limit else dataset
    rows = list(tfds.as_numpy(dataset))
    images = np.stack([row["image"] for row in rows])
    return images, np.stack([row["segmentation"][..., 0] for row in rows])
