"""Text files that name files, line by line, in any of the forms that people write."""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from typing import NamedTuple

from absl import logging

from slotcon_tf.data.extensions import ALL_EXTENSIONS, is_image_file
from slotcon_tf.data.reading import read_file
from slotcon_tf.images.pixels import BadImage

MAX_LIST_BYTES = 2**30
# What people call the column of the images; the first of these that is there is it.
IMAGE_COLUMNS = (
    *("path", "file", "filename", "file_name", "file_path", "filepath", "image"),
    *("images", "image_path", "image_name", "image_file", "img", "img_path"),
    *("img_name", "image_id", "img_id", "file_id", "name"),
)
# What they call the others: two known names in a line make it a header.
_OTHER_COLUMNS = {
    *("label", "labels", "class", "classes", "class_id", "class_name", "label_id"),
    *("category", "category_id", "target", "y", "mask", "masks", "mask_path", "id"),
    *("segmentation", "annotation", "annotations", "labels_path", "label_path"),
    *("split", "fold", "width", "height", "index", "x", "caption", "score"),
}
# Without their underscores, as some write them: ImageId, image path.
_KNOWN = {n.replace("_", ""): n for n in (*IMAGE_COLUMNS, *_OTHER_COLUMNS)}
_MOST_LINES = 100  # of one line of CSV whose quotes hold ends of lines
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENDINGS = "|".join(extension[1:] for extension in ALL_EXTENSIONS)
_NAME_END = re.compile(rf"\.(?:{_ENDINGS})(?=(\s*[,;]\s*|\s+))", re.IGNORECASE)


class Row(NamedTuple):
    """A line of a list.

    Attributes:
        number: Of the line, from 1.
        text: The line, without what surrounds it.
        cells: List of its columns. Only tabs, commas, semicolons, quotes, and blanks
            behind a file name that ends as images do, part columns: a line that names
            a file of another ending has one cell.

    Example: See `read_rows`.
        >>> Row(1, "a b.jpg, 3", split_columns("a b.jpg, 3")).cells
        ['a b.jpg', '3']
    """

    number: int
    text: str
    cells: list[str]


def read_rows(path: str | os.PathLike[str]) -> tuple[list[Row], list[str] | None]:
    """Lines of a list as columns, without comments (#), blank lines and a header.

    A byte order mark (UTF-8 or UTF-16), any ends of lines, tabs, CSV with quotes, and
    names with blanks and commas are understood. Names that are not UTF-8 come as
    `os.fsdecode` gives them.

    Args:
        path: Of the list, local or remote.

    Returns:
        Tuple of a list of `Row`, and the header: a list of lower-case names, or None.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not text.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "train.csv")
        >>> _ = path.write_text("image,label\\na b.jpg,3\\n")
        >>> rows, header = read_rows(path)
        >>> rows[0].cells, header
        (['a b.jpg', '3'], ['image', 'label'])
    """
    lines = _whole(_lines(path))
    _check_no_json(path, lines)
    header = _header(*(text for _, text in lines[:2]))
    if not header:
        return [Row(n, text, split_columns(text)) for n, text in lines], None
    (number, first), *lines = lines
    if not set(header) & set(IMAGE_COLUMNS):
        header = _by_content(header, first, lines)
        logging.warning("%s: line %d is taken for a header: %s", path, number, first)
    parting = _parting(first)
    return [Row(n, text, _under(header, parting, text)) for n, text in lines], header  # pyright: ignore[reportReturnType]


def split_columns(text: str) -> list[str]:
    """Columns of a line; see `Row`.

    Example:
        >>> split_columns("a b.jpg, 3"), split_columns("a.jpg a.png")
        (['a b.jpg', '3'], ['a.jpg', 'a.png'])
    """
    if "\t" in text:
        return [_bare(cell) for cell in text.split("\t")]
    if text.startswith('"') or re.search(r'[,;]\s*"', text):
        cells = _quoted(text)
        if cells:
            return cells
    cells, parting, start = [], None, 0
    for found in _NAME_END.finditer(text):
        cells.append(text[start : found.start(1)])
        parting, start = found[1].strip(), found.end(1)
    text = text[start:]
    if not cells or is_image_file(text):
        return [*cells, text]
    # Any number of blanks part columns, and so does each comma.
    rest = text.split(parting) if parting else text.split()
    return [*cells, *map(str.strip, rest)]


def image_column(header: list[str]) -> int:
    """Number of the column that names the images.

    Example:
        >>> image_column(["label", "file_name"])
        1
    """
    return header.index(next(name for name in IMAGE_COLUMNS if name in header))


def _under(header, parting, text):
    """Columns of a line below a header. A name may hold what parts the columns."""
    if parting.isspace() and parting != "\t":
        return _under_blanks(header, text)
    cells = _parsed(text, parting) if '"' in text else None
    cells = cells or text.split(parting)
    surplus = len(cells) - len(header)
    if surplus > 0:
        first = image_column(header)
        name = parting.join(cells[first : first + surplus + 1])
        cells[first : first + surplus + 1] = [name]
    return [cell.strip() for cell in cells]


def _under_blanks(header, text):
    """As `_under`, for names that blanks part; those that are no columns stay."""
    cells = _parsed(text, " ") if '"' in text else None
    if cells and len(cells) == len(header):
        return cells
    column = image_column(header)
    cells = text.split(None, column)
    if len(cells) == column + 1:
        cells += cells.pop().rsplit(None, len(header) - column - 1)
    if len(cells) == len(header) and is_image_file(cells[column]):
        return cells
    # A row of other columns than its header's, or of names without an ending.
    found = split_columns(text)
    whole = len(cells) == len(header) and not any(map(is_image_file, found))
    return cells if whole else found


def _whole(lines):
    """Pairs of number and line, without comments and blanks; see `_joined`."""
    found, number = [], 0
    while number < len(lines):
        # Lists that were put together have such marks inside.
        text, count = lines[number].lstrip("\ufeff").strip(), 1
        if text and not text.startswith("#"):
            if text.count('"') % 2:
                text, count = _joined(text, lines[number + 1 : number + _MOST_LINES])
            found.append((number + 1, text))
        number += count
    return found


def _joined(text, following):
    """A line of CSV whose quotes hold ends of lines, and how many lines it takes."""
    if re.search(r'(?:^|[,;\t])\s*"', text):
        parts = [text]
        for line in following:
            parts.append(line.strip())
            if line.count('"') % 2:
                whole = " ".join(parts)
                parted = any(_parsed(whole, mark) for mark in ",;\t")
                return (whole, len(parts)) if parted else (text, 1)
    return text, 1


def _check_no_json(path, lines):
    start = lines[0][1] if lines else ""
    texts = [start, "".join(text for _, text in lines)] if start[:1] in "[{" else []
    for text in filter(None, texts):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            continue
        raise ValueError(
            "A list must be plain text, an image per line. Received: "
            f"{os.fspath(path)}, which is JSON. Write its paths to a text file."
        )


def _lines(path):
    try:
        data = read_file(path, MAX_LIST_BYTES)
    except BadImage as error:
        raise ValueError(
            f"A list must be a text file. Received: {os.fspath(path)}: {error}."
        ) from None
    if data.startswith(_UTF16):
        text = data.decode("utf-16", "replace")
    else:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ValueError(
            f"A list must be a text file. Received: {os.fspath(path)}, which holds "
            "bytes of 0. Name the list, not an image, an archive or a folder, and save "
            "it as UTF-8."
        )
    return re.split(r"\r\n|\n|\r", text)


def _quoted(text):
    """Cells of a line of CSV with quotes; None where the quotes are no such."""
    behind = re.match(r'"(?:[^"]|"")*"\s*([,;]|\s|$)', text)
    parting = (behind and behind[1]) or ("," if "," in text else ";")
    parting = parting if parting in ",;" else " "
    return _parsed(text, parting)


def _parsed(text, parting):
    """Cells of a line of CSV; None if it is none."""
    try:
        (cells,) = csv.reader(
            [text], delimiter=parting, skipinitialspace=True, strict=True
        )
    except (csv.Error, ValueError):
        return None
    return [cell.strip() for cell in cells]


def _bare(cell):
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def _header(text="", following=""):
    """Names of the columns, if a line has those and no file; otherwise None.

    A name like "img 1" may be a file's: two columns must be known, or one, and the
    following line names a file. Of columns that nobody knows the following line must
    have as many, one of them an image.
    """
    if _names_file(text):
        return None
    cells = [_known(_bare(cell)) for cell in _parted(text)]
    images, others = set(cells) & set(IMAGE_COLUMNS), set(cells) & _OTHER_COLUMNS
    known = len(images) + len(others) > 1 or _names_file(following)
    if images:
        return cells if known else None
    return cells if _by_content(cells, text, [(0, following)]) else None


def _by_content(header, first, lines):
    """A header whose image column is where the first line below it has its image."""
    parting = _parting(first)
    cells = _parted(lines[0][1], parting) if lines and not parting.isspace() else []
    images = [i for i, cell in enumerate(cells) if is_image_file(_bare(cell))]
    if not images or len(cells) != len(header) or len(header) < 2:
        return None
    return [IMAGE_COLUMNS[0] if i == images[0] else n for i, n in enumerate(header)]


def _parting(text):
    """What parts the columns of a header: its first tab, comma or semicolon."""
    found = re.search(r"[\t,;]", text)
    return found[0] if found else " "


def _parted(text, parting=None):
    parting = parting or _parting(text)
    if parting.isspace() and parting != "\t":
        return text.split()
    cells = _parsed(text, parting) if '"' in text else None
    return cells or [cell.strip() for cell in text.split(parting)]


def _known(name):
    """A column's name in lower case, spelled as `IMAGE_COLUMNS` has it."""
    name = name.lower()
    return _KNOWN.get(re.sub(r"[\s_-]", "", name), name)


def _names_file(text):
    return is_image_file(text) or any(map(is_image_file, split_columns(text)))
