"""Packs a folder of images into TFRecord shards, for disks slow at small files.

    python -m trainers.prepare --data_dir=/data/coco --dataset=coco --output=/fast/coco
    python -m trainers.pretrain --dataset=records --data_dir=/fast/coco ...

The images' bytes are kept as they are. Bad images are named and left out.
"""

import os
import sys

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import reason_of
from slotcon_tf.data.records import INDEX, shard_name, write_index, write_shard
from slotcon_tf.data.sources import open_files
from slotcon_tf.images import BadImage, decode_image
from slotcon_tf.images.decoding import MAX_PIXELS
from slotcon_tf.images.statistics import parse_statistics
from slotcon_tf.progress import bar
from slotcon_tf.runs.command_line import run_main

FLAGS = flags.FLAGS
_OWN = {"module_name": "trainers.prepare"}
flags.DEFINE_string("data_dir", None, "Folder of the images, or the list.", **_OWN)
flags.DEFINE_string(
    "dataset", "folder", "folder, coco, coco_plus, imagenet or list.", **_OWN
)
flags.DEFINE_bool(
    "allow_remote_paths", False, "A local list may name remote files.", **_OWN
)
flags.DEFINE_string("output", None, "New folder of the shards.", **_OWN)
flags.DEFINE_integer("shards", 64, "Number of shards.", lower_bound=1, **_OWN)
flags.DEFINE_integer("max_pixels", MAX_PIXELS, "Larger images are left out.", **_OWN)
flags.DEFINE_string(
    "pixel_range", None, "low,high of images of more than 8 bits.", **_OWN
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"No arguments but flags are taken. Received: {argv[1:]}.")
    try:
        written, bad = prepare()
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"prepare: {error}")
    print(f"{written} images in {FLAGS.output}, {bad} bad ones left out")


def prepare():
    """Writes the shards; returns the numbers of images written and left out."""
    if not FLAGS.output:
        raise ValueError("A folder for the shards is needed. Set --output.")
    if tf.io.gfile.exists(os.path.join(FLAGS.output, INDEX)):
        raise ValueError(
            f"--output must be a folder without shards. Received: {FLAGS.output}, "
            "which has some. Take another folder."
        )
    source = open_files(
        FLAGS.dataset,
        FLAGS.data_dir,
        allow_remote=FLAGS.allow_remote_paths,
        max_pixels=FLAGS.max_pixels,
        **_pixel_range(),
    )
    tf.io.gfile.makedirs(FLAGS.output)
    shards = min(FLAGS.shards, source.num_images)
    numbers = np.arange(source.num_images)
    places, bad = [], []
    with bar(total=source.num_images, unit="image", desc="prepare") as progress:
        for shard, part in enumerate(np.array_split(numbers, shards)):
            path = os.path.join(FLAGS.output, shard_name(shard, shards))
            places.append(write_shard(path, _good(source, part, progress, bad)))
    if not sum(map(len, places)):
        raise ValueError(f"{source.name} must hold images that can be decoded: none.")
    write_index(FLAGS.output, places)
    return sum(map(len, places)), len(bad)


def _pixel_range():
    given = parse_statistics(None, None, FLAGS.pixel_range)["pixel_range"]
    return {"pixel_range": given}


def _good(source, numbers, progress, bad):
    for number in numbers.tolist():
        path = source.paths[number]
        progress.update()
        try:
            data = source.read_patiently(number)
            decode_image(data, source.max_pixels, source.pixel_range)
        except (BadImage, OSError, tf.errors.OpError) as error:
            bad.append(path)
            reason = reason_of(error)
            logging.warning("Left out %s: %s", printable(path), reason)
            continue
        yield printable(os.path.basename(path)), data


if __name__ == "__main__":
    run_main(main, "trainers.prepare")
