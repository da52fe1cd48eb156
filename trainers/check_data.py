"""Reads every image of a folder in advance, and reports sizes, formats and bad files.

    python -m trainers.check_data --data_dir=photos

Named as well: files that are missing, pipes and devices, remote files, and how many of
which extension were passed over. The exit status is 1 if an image is bad.
"""

import collections
import concurrent.futures
import functools
import os
import sys

import numpy as np
import tensorflow as tf
from absl import app, flags

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import is_remote, reason_of
from slotcon_tf.data.sources import open_files
from slotcon_tf.images.decoding import MAX_PIXELS, decode_pixels, open_image
from slotcon_tf.images.pixels import FEW_LEVELS, BadImage, has_few_levels
from slotcon_tf.images.statistics import parse_statistics
from slotcon_tf.progress import bar
from slotcon_tf.runs.command_line import run_main

FLAGS = flags.FLAGS
_OWN = {"module_name": "trainers.check_data"}
flags.DEFINE_string("data_dir", None, "Folder of the images, or the list.", **_OWN)
flags.DEFINE_string(
    "dataset", "folder", "folder, coco, coco_plus, imagenet or list.", **_OWN
)
flags.DEFINE_integer("max_pixels", MAX_PIXELS, "Larger images are bad.", **_OWN)
flags.DEFINE_bool(
    "allow_remote_paths", False, "A local list may name remote files.", **_OWN
)
flags.DEFINE_string(
    "pixel_range", None, "low,high of images of more than 8 bits.", **_OWN
)
flags.DEFINE_string("bad_list", "", "Write the bad files to this text file.", **_OWN)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"No arguments but flags are taken. Received: {argv[1:]}.")
    try:
        source = open_files(
            FLAGS.dataset,
            FLAGS.data_dir,
            allow_remote=FLAGS.allow_remote_paths,
            max_pixels=FLAGS.max_pixels,
            **_pixel_range(),
        )
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"check_data: {error}")
    rows, bad = check(source)
    print(summary(rows, bad, source.num_images))
    for line in remarks(source):
        print(line)
    if FLAGS.bad_list:
        with open(FLAGS.bad_list, "w", encoding="utf-8") as file:
            file.writelines(f"{path}\t{reason}\n" for path, reason in bad)
    sys.exit(1 if bad else 0)


def check(source):
    """Decodes every file of a `FileSource`.

    Returns:
        Tuple of a list of (format, mode, width, height, range, few) of the good ones
        and a list of (path, reason) of the bad ones, both in the order of the paths.
        `range` is what 16-bit values were read in, None for 8 bits; `few` the path
        where there are few grey levels, else None.
    """
    rows, bad = [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(functools.partial(_look, source), range(source.num_images))
        shown = bar(found, total=source.num_images, unit="image", desc="check")
        for path, row in zip(source.paths, shown, strict=True):
            if isinstance(row, str):
                bad.append((printable(path), printable(row)))
            else:
                rows.append(row)
    return rows, bad


def _pixel_range():
    given = parse_statistics(None, None, FLAGS.pixel_range)["pixel_range"]
    return {"pixel_range": given}


def _look(source, number):
    try:
        data = source.read_patiently(number)
        header = open_image(data, source.max_pixels)
        kind, mode = header.format, header.mode
        limits = source.max_pixels, source.pixel_range
        image, values, read_in = decode_pixels(data, *limits)
    except (BadImage, OSError, tf.errors.OpError) as error:
        return reason_of(error)
    height, width, _ = image.shape
    few = printable(source.paths[number]) if has_few_levels(image, values) else None
    return kind, mode, width, height, read_in, few


def remarks(source):
    """What is to be known of a source beside its images, a list of lines."""
    lines = [str(source.passed_over)] if str(source.passed_over) else []
    special = source.passed_over.special
    lines += [f"  {printable(path)}: no file" for path in special]
    remote = sum(map(is_remote, source.paths))
    if remote:
        lines.append(f"{remote} images are remote.")
    return lines


def summary(rows, bad, total):
    """The report as text."""
    lines = [f"{total} images, {len(bad)} bad"]
    if rows:
        kinds = collections.Counter(f"{kind} {mode}" for kind, mode, *_ in rows)
        lines.append("formats:")
        lines += [f"  {kind:16}{count:>9}" for kind, count in kinds.most_common()]
        sizes = np.asarray([row[2:4] for row in rows])
        lines.append("pixels:       smallest   median  largest")
        for name, values in (
            ("width", sizes[:, 0]),
            ("height", sizes[:, 1]),
            ("shorter edge", sizes.min(axis=1)),
        ):
            figures = (values.min(), np.median(values), values.max())
            lines.append(f"  {name:12}" + "".join(f"{int(v):>9}" for v in figures))
        lines += _levels(rows)
    if bad:
        lines.append("bad:")
        lines += [f"  {path}: {reason}" for path, reason in bad]
    return "\n".join(lines)


def _levels(rows):
    """What the pixels of more than 8 bits were read in, and what came out too flat."""
    lines = []
    ranges = collections.Counter(row[4] for row in rows if row[4])
    if ranges:
        lines.append("more than 8 bits, read in the range:")
        for (low, high), count in sorted(ranges.items()):
            lines.append(f"  {f'{low:g}..{high:g}':16}{count:>9}")
    if len(ranges) > 1:
        lines.append(
            "  Images of one camera are read alike with --pixel_range=0,"
            f"{max(high for _, high in ranges):g}."
        )
    few = [row[5] for row in rows if row[5]]
    if few:
        lines.append(
            f"{len(few)} images have fewer than {FEW_LEVELS} grey levels as they are "
            f"read, the first {few[0]}: set --pixel_range=low,high to the values that "
            "they hold, unless they are drawings"
        )
    return lines


if __name__ == "__main__":
    run_main(main, "trainers.check_data")
