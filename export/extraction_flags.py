"""Flags and steps that `export.client` and `export.extract` share."""

import pathlib
import sys

from absl import app, flags

from slotcon_tf.data.listing import list_images
from slotcon_tf.data.lists import read_list

from .extraction import Images, report
from .tables import ENDINGS

FLAGS = flags.FLAGS


def define_flags(module):
    """Defines what is extracted, and where it goes, under a main's name."""
    own = {"module_name": module}
    flags.DEFINE_string(
        "images", None, "Folder of images, or a text file with a path per line.", **own
    )
    flags.DEFINE_string("output", None, "File to write: .npz or .parquet.", **own)
    flags.DEFINE_string("signature", "image_bytes", "One that takes files.", **own)
    flags.DEFINE_list("outputs", ["pooled"], "Outputs to keep.", **own)
    flags.DEFINE_integer("batch_size", 8, "Images per request.", lower_bound=1, **own)
    flags.DEFINE_integer("concurrency", 4, "Requests at once.", lower_bound=1, **own)
    flags.DEFINE_integer(
        "max_image_mb", 20, "Larger files are not sent.", lower_bound=1, **own
    )


def listed_images():
    """The `Images` of the flags, which are checked.

    Raises:
        ValueError, FileNotFoundError: If there are none.
    """
    if not FLAGS.images or not FLAGS.output:
        raise app.UsageError("--images and --output are needed.")
    if pathlib.Path(FLAGS.output).suffix not in ENDINGS:
        raise ValueError(
            f"--output must end in {' or '.join(ENDINGS)}. Received: {FLAGS.output}."
        )
    source = pathlib.Path(FLAGS.images)
    if source.is_file():
        cure = "Copy them to this machine, and list the copies."
        return Images(source.parent, tuple(read_list(source, cure=cure)))
    return Images(source, tuple(list_images("folder", source)))


def run(extract, images):
    """Extracts by the flags, and prints what came of it."""
    failed = extract(
        images,
        pathlib.Path(FLAGS.output),
        batch_size=FLAGS.batch_size,
        concurrency=FLAGS.concurrency,
        max_image_bytes=FLAGS.max_image_mb * 2**20,
    )
    *named, last = report(FLAGS.output, images, failed)
    for line in named:
        print(line, file=sys.stderr)
    print(last)
