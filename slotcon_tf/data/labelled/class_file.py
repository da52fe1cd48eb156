"""read_class_names: a text file of classes to a table of their ids."""

from __future__ import annotations

import codecs
import csv
import os
import pathlib
import re

from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.labelled.classes import ClassTable
from slotcon_tf.data.labelled.decoding import MAX_CLASSES, MAX_ID, VOID, LabelError
from slotcon_tf.data.lists import MAX_LIST_BYTES
from slotcon_tf.data.reading import read_file, reason_of
from slotcon_tf.images.pixels import BadImage

_VOID_NAMES = {"void", "unlabeled", "unlabelled", "ignore", "ignored"}
_HEADERS = {
    *("id", "ids", "idx", "index", "value", "number", "class_id", "label_id"),
    *("name", "names", "class", "classes", "label", "labels", "category"),
    *("class_name", "label_name", "r", "g", "b", "red", "green", "blue", "color"),
}
# labelme: the first line of its labels.txt, with the id -1, and the class 0.
# Reference: examples/semantic_segmentation/labelme2voc.py of labelme.
_IGNORE, _BACKGROUND = "__ignore__", "_background_"
_NUMBERED = re.compile(
    r'"?([+-]?[0-9]+)"?'
    r"(?:\s*([,;:=|\t])\s*|\s+-+>?\s+|[.)]\s*(?![0-9\s])|\s+|$)(.*)"
)
# A name with its colour, as in CVAT's labelmap.txt: "cat:128,0,0::", "cat,128,0,0".
_COLOURED = re.compile(r"(.*?\S)\s*[:,;\s]\s*(?:\d{1,3}\s*[,;\s]\s*){2}\d{1,3}(?::.*)?")
_CVAT = "label:color_rgb"  # how its header begins, behind a # or not
_COLOUR_FIRST = re.compile(r"\d{1,3}[\s,;]+\d{1,3}[\s,;]+\d{1,3}[\s,;]+\D.*")
_ID_BEHIND = re.compile(r"(.*?\S)(\s*[,\t;:=|]\s*|\s+)(\d{1,3})")
_FRACTION = re.compile(r"[+-]?\d+\.\d")
_OTHER_SYNTAX = re.compile(r"\w*\s*\{|\}")  # of protobuf's text, JSON in lines
_MAX_NAME = 1000


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, with a mark at its start or without, or UTF-16.

    Raises:
        FileNotFoundError: If there is none.
        LabelError: If it is no such text.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "names.txt")
        >>> _ = path.write_bytes(codecs.BOM_UTF8 + b"sky")
        >>> read_text(path)
        'sky'
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"A text file is needed. Received: {path}, no file.")
    try:
        data = read_file(path, MAX_LIST_BYTES)
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        raise _no_text(path, "it is not UTF-8") from None
    except (OSError, BadImage) as error:
        raise _no_text(path, reason_of(error)) from None
    if text.startswith("version https://git-lfs"):
        raise LabelError(
            "The names of a labelled set must be there. Received: "
            f"{path}: a git LFS pointer, not the file. Run git lfs pull."
        )
    if "\0" in text:
        raise _no_text(path, "it holds binary zeros")
    return text


def _no_text(path, reason):
    return LabelError(
        f"The names of a labelled set must be text in UTF-8. Received: {path}: "
        f"{reason}. Save it as UTF-8."
    )


def read_class_names(path: str | os.PathLike[str]) -> ClassTable:
    """A `ClassTable` of a text file: "id name" per line, or a name per line.

    Ids are numbers before a blank, tab, comma, semicolon or colon; of a line with
    commas or tabs what follows the name is left out, and so are colours behind names,
    as in CVAT's labelmap.txt. Either all lines have an id or
    none; without, they count from 0. A line that is a number alone is an id. Of lines
    with one id the last counts; of classes with one name the later have their id behind
    it; both are warned of. Classes named void, unlabeled or ignore count nowhere.
    labelme's labels.txt is read as labelme does: its first line `__ignore__` is void
    and takes no number, `_background_` is 0.

    Raises:
        FileNotFoundError: If there is no such file.
        LabelError: If a line cannot be read; it names which.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "classes.txt")
        >>> _ = path.write_text("0 sky\\n7 road\\n")
        >>> read_class_names(path).names
        ('sky', 'road')
    """
    rows = [
        (number, line.strip())
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if rows and rows[0][1].lower().startswith(_CVAT):
        rows = rows[1:]
    _check_kind(path, rows)
    coloured = [_COLOURED.fullmatch(line) for _, line in rows]
    if coloured and all(coloured) and not any(line[0].isdigit() for _, line in rows):
        rows = [(n, name[1]) for (n, _), name in zip(rows, coloured, strict=True)]
    numbered = [bool(_NUMBERED.match(line)) for _, line in rows]
    ids_follow = len(rows) > 1 and not numbered[0] and all(numbered[1:])
    if ids_follow and _words(rows[0][1], r"[\s,;:]+")[0] in _HEADERS:
        rows, numbered = rows[1:], numbered[1:]
    if any(numbered) and not all(numbered):
        place, line = rows[numbered.index(False)]
        need = "have an id before every name, or before none"
        raise _error(path, need, f"{line[:40]!r} in line {place}")
    parsed = _numbered(path, rows) if any(numbered) else _counted(path, rows)
    return _table(path, parsed)


def _check_kind(path, rows):
    """Refuses what would be read as other classes than are meant."""
    lines = [line for _, line in rows]
    if lines and (lines[0][0] in "{[<" or any(map(_OTHER_SYNTAX.fullmatch, lines))):
        raise _error(path, "be plain text, 'id name' per line", f"{lines[0][:20]!r}")
    if lines and all(map(_COLOUR_FIRST.fullmatch, lines)):
        need = "have ids, not colours, before the names"
        raise _error(path, need, f"{lines[0][:40]!r} in line {rows[0][0]}")
    if lines and all(map(_FRACTION.match, lines)):
        raise _error(path, "have whole ids", f"{lines[0][:40]!r} in line {rows[0][0]}")


def is_labelme(path: str | os.PathLike[str]) -> bool:
    """Whether a text file begins as labelme's lists of classes do.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "labels.txt")
        >>> _ = path.write_text("__ignore__\\n_background_\\ncat\\n")
        >>> is_labelme(path)
        True
    """
    with pathlib.Path(path).open("rb") as file:
        first = file.read(64).removeprefix(b"\xef\xbb\xbf").split()[:1]
    return first in ([_IGNORE.encode()], [_BACKGROUND.encode()])


def _numbered(path, rows):
    """Triples of line number, id and name, of lines with an id each."""
    for place, line in rows:
        digits, mark, rest = _NUMBERED.match(line).groups()
        if len(digits) > 11 or abs(int(digits)) > MAX_ID:
            raise _error(path, "have ids below 2^31", f"{line[:40]!r} in line {place}")
        mark = mark if mark in (",", ";") else "\t"
        name = next(iter(_fields(rest, mark)), "")
        yield place, int(digits), name or digits


def _counted(path, rows):
    """Triples of line number, id and name, of lines that are names."""
    if rows and set(_words(rows[0][1], r"[\s,;]+")) <= _HEADERS:
        need = "begin with a class; a '#' makes a line a comment"
        raise _error(path, need, f"{rows[0][1][:40]!r} in line {rows[0][0]}")
    if _ids_behind([line for _, line in rows]):
        raise _error(path, "have the id before the name", f"{rows[0][1]!r}")
    first = -1 if rows and rows[0][1] == _IGNORE else 0
    for number, (place, line) in enumerate(rows, start=first):
        name = next(iter(_fields(line, "\t")))
        rule = {_IGNORE: -1, _BACKGROUND: 0}.get(name, number)
        if rule != number:
            need = f"have {name} as id {rule}, the rule of labelme's labels.txt"
            raise _error(path, need, f"it in line {place}")
        yield place, number, name


def _ids_behind(lines):
    """Whether names have their ids behind them, and not in the order of the lines.

    "zone 1", "zone 2" are names, and so are "Boeing 747", "Airbus 320".
    """
    found = [_ID_BEHIND.fullmatch(line) for line in lines]
    if len(found) < 2 or not all(found):
        return False
    ids = [int(each[3]) for each in found]
    if len(set(ids)) < len(ids) or ids == list(range(len(ids))):
        return False
    columns = all(each[2].strip() or "\t" in each[2] for each in found)
    counted = sorted({*ids} - {VOID})
    counts = counted in ([*range(len(counted))], [*range(1, len(counted) + 1)])
    return columns or (counts and len({each[1] for each in found}) == len(ids))


def _words(line, marks):
    return re.split(marks, line.lower().replace('"', ""))


def _fields(line, mark):
    """Fields of a line, without the quotes of CSV."""
    try:
        return [f.strip() for row in csv.reader([line], delimiter=mark) for f in row]
    except csv.Error:  # longer than any name
        return [line]


def _table(path, rows):
    found = {}
    for place, number, name in rows:
        if not name or re.search(r"[\x00-\x1f\x7f]", name) or len(name) > _MAX_NAME:
            raise _error(path, "name every class", f"{name[:40]!r} in line {place}")
        if found.get(number, name) != name:
            last = f"id {number} as {name!r} from here on"
            _warn(path, f"{last}, and as {found[number]!r} before", place)
        found[number] = name
    void = [i for i, name in found.items() if name.strip("_").lower() in _VOID_NAMES]
    ids, named = {}, set()
    for number, name in sorted(found.items()):
        if number in void:
            continue
        if name in named:
            _warn(path, f"two classes of the name {name!r}", f"of id {number}")
        ids[number] = f"{name} ({number})" if name in named else name
        named.add(ids[number])
    if not 0 < len(ids) < MAX_CLASSES:
        need = f"name between 1 and {MAX_CLASSES - 1} classes"
        raise _error(path, need, f"{len(ids)}")
    return ClassTable(ids, void=void)


def _warn(path, what, place):
    logging.warning("%s, line %s: %s", path, place, printable(what))


def _error(path, need, got):
    return LabelError(
        f"A file of classes must {need}. Received: {path}: {got}. Write 'id name' per "
        "line, in UTF-8."
    )
