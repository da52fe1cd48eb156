"""Looks through images in advance: sizes, formats, bad files."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import is_remote, reason_of
from slotcon_tf.data.sources import open_files
from slotcon_tf.data.stored_sources import FileSource
from slotcon_tf.files import write_text
from slotcon_tf.images.decoding import decode_pixels, open_image
from slotcon_tf.images.pixels import FEW_LEVELS, BadImage, has_few_levels
from slotcon_tf.progress import bar
from slotcon_tf.runs.settings import SettingError, setting
from slotcon_tf.runs.source_settings import FileSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckDataConfig(FileSettings):
    """Which images are looked through; see `check_data`.

    Example:
        >>> CheckDataConfig(data_dir="photos").dataset
        'folder'
    """

    bad_list: str = setting("", "Write the bad files to this text file.")


class Row(NamedTuple):
    """What a good image is.

    Attributes:
        format, mode: As Pillow names them.
        width, height: Pixels.
        range: (low, high) that values of more than 8 bits were read in; None for 8.
        few: The path where there are few grey levels, else None.

    Example:
        >>> row = Row("JPEG", "RGB", width=640, height=480, range=None, few=None)
        >>> min(row.width, row.height)
        480
    """

    format: str | None
    mode: str
    width: int
    height: int
    range: tuple[float, float] | None
    few: str | None


def check_data(config: CheckDataConfig) -> dict[str, str]:
    """Reads every image; prints a report.

    Named as well: files that are missing, pipes and devices, remote files, and how many
    of which extension were passed over.

    Args:
        config: Which images.

    Returns:
        Path of each bad image to its reason.

    Raises:
        SettingError: If `bad_list` is a folder.
        ValueError, OSError: If there are no images, or the folder or list cannot be
            read.

    Example:
        >>> import pathlib, tempfile
        >>> photos = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (photos / "page.jpg").write_bytes(b"<html>")
        >>> bad = check_data(CheckDataConfig(data_dir=photos))  # doctest: +ELLIPSIS
        1 images, 1 bad
        bad:
          .../page.jpg: a text file
        >>> list(bad.values())
        ['a text file']
    """
    if config.bad_list and pathlib.Path(config.bad_list).is_dir():
        raise SettingError(
            f"`bad_list` must be a file to write. Received: bad_list={config.bad_list}"
            ", a folder. Name a file in it."
        )
    source = open_files(config.dataset, config.data_dir, **config.limits())
    rows, bad = _check(source)
    print("\n".join([_summary(rows, bad, source.num_images), *_remarks(source)]))
    if config.bad_list:
        lines = [f"{path}\t{reason}\n" for path, reason in bad]
        write_text(pathlib.Path(config.bad_list), "".join(lines))
    return dict(bad)


def _check(source: FileSource) -> tuple[list[Row], list[tuple[str, str]]]:
    """Decodes every file of a `FileSource`.

    Returns:
        Tuple of a list of `Row` of the good ones and a list of (path, reason) of the
        bad ones, both in the order of the paths.
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


def _look(source: FileSource, number: int) -> Row | str:
    """What one image is, or the reason why it is bad."""
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
    return Row(kind, mode, width, height, read_in, few)


def _remarks(source: FileSource) -> list[str]:
    """What is to be known of a source beside its images, a list of lines."""
    lines = [str(source.passed_over)] if str(source.passed_over) else []
    special = source.passed_over.special
    lines += [f"  {printable(path)}: no file" for path in special]
    remote = sum(map(is_remote, source.paths))
    if remote:
        lines.append(f"{remote} images are remote.")
    return lines


def _summary(rows: list[Row], bad: list[tuple[str, str]], total: int) -> str:
    """The report as text."""
    lines = [f"{total} images, {len(bad)} bad"]
    if rows:
        kinds = collections.Counter(f"{row.format} {row.mode}" for row in rows)
        lines.append("formats:")
        lines += [f"  {kind:16}{count:>9}" for kind, count in kinds.most_common()]
        sizes = np.asarray([(row.width, row.height) for row in rows])
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


def _levels(rows: list[Row]) -> list[str]:
    """What the pixels of more than 8 bits were read in, and what came out too flat."""
    lines = []
    ranges = collections.Counter(row.range for row in rows if row.range)
    if ranges:
        lines.append("more than 8 bits, read in the range:")
        for (low, high), count in sorted(ranges.items()):
            lines.append(f"  {f'{low:g}..{high:g}':16}{count:>9}")
    if len(ranges) > 1:
        lines.append(
            "  Images of one camera are read alike with pixel_range=0,"
            f"{max(high for _, high in ranges):g}."
        )
    few = [row.few for row in rows if row.few]
    if few:
        lines.append(
            f"{len(few)} images have fewer than {FEW_LEVELS} grey levels as they are "
            f"read, the first {few[0]}: set pixel_range=low,high to the values that "
            "they hold, unless they are drawings"
        )
    return lines
