"""Text files that name files, line by line, in any of the forms that people write."""

from __future__ import annotations

import codecs
import csv
import os
import re
import stat
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.listing import (
    ALL_EXTENSIONS,
    HEIC_EXTENSIONS,
    INSTALL_HEIC,
    check_there,
    is_image_file,
    reads_heic,
)
from slotcon_tf.data.reading import is_remote, read_file, remote_errors
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
_ALLOW = "If you trust the list, set `allow_remote` (`allow_remote_paths`)."
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
    """

    number: int
    text: str
    cells: list[str]


@remote_errors("A list")
def read_list(
    path: str | os.PathLike[str] | None, allow_remote: bool = False, cure: str = _ALLOW
) -> list[str]:
    """Paths that a list names: one per line, relative to it, whatever is behind it.

    Columns are parted as `lists.read_rows` says. The image is the column that the
    header calls so, otherwise the first that ends as images do, otherwise the line.

    Args:
        path: Of the list.
        allow_remote: Whether a local list may name remote files.
        cure: What to do about remote files that it may not name, for the message.

    Raises:
        FileNotFoundError: If there is no such file, or none of those it names.
        ValueError: If it is no text, names nothing, or names remote files.
        OSError: If it cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "a.jpg").touch()
        >>> _ = (folder / "list.csv").write_text("image,label\\na.jpg,3\\n")
        >>> [os.path.basename(path) for path in read_list(folder / "list.csv")]
        ['a.jpg']
    """
    if not path or not tf.io.gfile.exists(os.fspath(path)):
        raise FileNotFoundError(
            f"Dataset 'list' needs a text file of image paths. Received: {path!r}, no "
            "such file. Check the path."
        )
    path = os.fspath(path)
    rows, header = read_rows(path)
    if not rows:
        raise ValueError(f"The list {path} must name images. Received: an empty list.")
    folder = os.path.dirname(path)
    names = [_image_of(row, header, folder) for row in rows]
    paths = [n if is_remote(n) else os.path.join(folder, n) for n in names]
    if not allow_remote:
        for row, name in zip(rows, paths, strict=True):
            if is_remote(name) and not _same_store(name, path):
                raise ValueError(
                    f"A list may name remote files only where that is allowed. "
                    f"Received: {printable(name)} in line {row.number} of {path}. "
                    f"{cure}"
                )
    check_there(
        paths,
        f"The list {path}",
        f"Line {rows[0].number} was read as {printable(paths[0])}; paths are relative "
        "to the list.",
    )
    unread = sum(p.lower().endswith(HEIC_EXTENSIONS) for p in paths)
    if unread and not reads_heic():
        logging.warning("%s: %d files are HEIC: %s.", path, unread, INSTALL_HEIC)
    return paths


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
    lines = [(n, line.strip()) for n, line in enumerate(_lines(path), start=1)]
    lines = [(n, text) for n, text in lines if text and not text.startswith("#")]
    header = _header(*(text for _, text in lines[:2]))
    if not header:
        return [Row(n, text, split_columns(text)) for n, text in lines], None
    (_, first), *lines = lines
    parting = re.search(r"[\t,;]|\s", first + " ")[0]
    return [Row(n, text, _under(header, parting, text)) for n, text in lines], header


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
            "bytes of 0. Name the list, not an image or a folder."
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
    following line names a file.
    """
    if _names_file(text):
        return None
    cells = [_bare(c).lower() for c in re.split(r"\s*[\t,;]\s*|\s+", text)]
    images, others = set(cells) & set(IMAGE_COLUMNS), set(cells) & _OTHER_COLUMNS
    known = len(images) + len(others) > 1 or _names_file(following)
    return cells if images and known else None


def _names_file(text):
    return is_image_file(text) or any(map(is_image_file, split_columns(text)))


def _same_store(name, path):
    """Whether a remote name lies where the list does."""
    return is_remote(path) and _store(name) == _store(path)


def _store(path):
    scheme, _, rest = path.partition("://")
    return scheme, rest.partition("/")[0]


def _image_of(row, header, folder):
    """The file that a row names."""
    if header:
        column = image_column(header)
        return row.cells[column] if column < len(row.cells) else row.text
    if len(row.cells) == 1:
        return row.cells[0]
    name = next(filter(is_image_file, row.cells), row.cells[0])
    # "photo.jpg copy.jpg" may be one name.
    if is_image_file(row.text) and not _is_file(folder, name):
        return row.text if _is_file(folder, row.text) else name
    return name


def _is_file(folder, name):
    path = os.path.join(folder, name)
    try:
        return not is_remote(path) and stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
