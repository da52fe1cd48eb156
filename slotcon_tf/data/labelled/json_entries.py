"""Entries of COCO's JSON files, checked as they are read; errors name the entry."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from slotcon_tf.data.labelled.decoding import LabelError
from slotcon_tf.data.reading import read_file

_MAX_BYTES = 2**32  # of the file; COCO's largest has a tenth
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in no name
TOP = "its top"


class Entry:
    """A dict of a file, and where it stands.

    Args:
        kind: What the file should be, such as "panoptic".
        path: The file.
        place: Such as "annotations[3]".
        value: What stands there.

    Raises:
        LabelError: If it is no dict, as methods do where a value is not as they say.

    Example:
        >>> entry = Entry("panoptic", "a.json", "images[0]", {"id": 3, "name": "cat"})
        >>> entry.number("id", 0, 9), entry.text("name")
        (3, 'cat')
    """

    def __init__(self, kind: str, path: object, place: str, value: Any) -> None:
        self.kind, self.path, self.place = kind, path, place
        self.value = value
        if not isinstance(value, dict):
            raise self.error("an object", value)

    def error(self, need: str, got: Any) -> LabelError:
        """Says what must hold here, and what came."""
        shown = got if isinstance(got, str) else json.dumps(got, default=str)
        if len(shown) > 60:
            shown = f"{shown[:57]}..."
        article = "An" if self.kind[0] in "aeiou" else "A"
        return LabelError(
            f"{article} {self.kind} JSON must have {need} in {self.place}. Received: "
            f"{shown!a} in {self.path}. Write the file again, or mend that entry."
        )

    def get(self, name: str, need: str) -> Any:
        if name not in self.value:
            raise self.error(need, f"no {name!r}")
        return self.value[name]

    def entries(self, name: str, least: int = 1) -> Iterator[Entry]:
        """The dicts of a list; the list may be empty where `least` is 0."""
        values = self.get(name, f"a list {name!r}")
        if not isinstance(values, list) or len(values) < least:
            raise self.error(f"a list {name!r} that is not empty", values)
        inside = "" if self.place == TOP else f"{self.place}."
        for index, value in enumerate(values):
            yield Entry(self.kind, self.path, f"{inside}{name}[{index}]", value)

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number; true and 1.0 are none."""
        value = self.get(name, f"a number {name!r}")
        if type(value) is not int or not low <= value <= high:
            raise self.error(f"a whole number {name!r} from {low} to {high}", value)
        return value

    def numbers(self, name: str, count: int) -> list[float]:
        """So many finite numbers."""
        values = self.get(name, f"a list {name!r}")
        if not are_numbers(values) or len(values) != count:
            raise self.error(f"a list {name!r} of {count} numbers", values)
        return values

    def identity(self, name: str) -> int | str:
        """What an image is known by: a whole number, or text as in Cityscapes'."""
        value = self.get(name, f"an {name!r}")
        if type(value) not in (int, str):
            raise self.error(f"a whole number or text as {name!r}", value)
        return value

    def text(self, name: str) -> str:
        value = self.get(name, f"a text {name!r}")
        if not isinstance(value, str) or not value.strip() or _ODD.search(value):
            raise self.error(f"a text {name!r}", value)
        return value

    def file_name(self) -> str:
        """A name below the folder of the images."""
        name = self.text("file_name")
        windows = pathlib.PureWindowsPath(name)  # parts end at / and \ there
        if windows.anchor or ".." in windows.parts:
            raise self.error("a 'file_name' below its folder", name)
        return name


def are_numbers(values: Any) -> bool:
    """Whether it is a list of finite numbers.

    Example:
        >>> are_numbers([1, 2.5]), are_numbers([True]), are_numbers(["1"])
        (True, False, False)
    """
    if not isinstance(values, list) or not {*map(type, values)} <= {int, float}:
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:  # a whole number of more digits than a float has
        return False


def read_json(path: str | os.PathLike[str], kind: str, constants: bool = False) -> Any:
    """The top of a file, as an `Entry`.

    Args:
        path: The file.
        kind: What it should be, such as "panoptic".
        constants: Whether NaN and Infinity are left to the checks of entries, which
            can name them; else the file is refused.

    Raises:
        LabelError: If it is no JSON file of an object.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.json")
        >>> _ = path.write_text('{"images": [{"id": 3}]}')
        >>> [entry.value for entry in read_json(path, "panoptic").entries("images")]
        [{'id': 3}]
    """

    def refused(constant):
        raise ValueError(f"{constant} is no number of JSON")

    own: dict[str, Any] = {} if constants else {"parse_constant": refused}
    try:
        # Bytes: it finds out whether they are UTF-8, with a mark or not, or UTF-16.
        content = json.loads(read_file(path, _MAX_BYTES), **own)
    except (ValueError, OSError, RecursionError) as error:  # BadImage is a ValueError
        reason = str(error) or type(error).__name__
        raise LabelError(
            f"The {kind} annotations must be a whole JSON file. Received: {path} "
            f"({reason}). Copy or unpack it again."
        ) from None
    return Entry(kind, path, TOP, content)
