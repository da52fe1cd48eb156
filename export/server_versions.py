"""The versions of a model that a local server has loaded."""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

from absl import logging
from tensorflow_serving.apis import get_model_status_pb2

from slotcon_tf.errors import first_line

from .server_errors import Refused, invalid
from .server_model import Version

_State = get_model_status_pb2.ModelVersionStatus  # pyright: ignore[reportAttributeAccessIssue]
_LARGEST = 2**63 - 1  # version in a message: int64


class Versions:
    """Keeps the newest versions of a folder loaded, and those that have labels.

    Args:
        folder: Of all versions.
        name: Of the model.
        labels: Dict of label to version.
        keep: How many of the newest.
        warmup: Whether a version answers its warm-up requests before others.

    Example:
        >>> import tempfile
        >>> versions = Versions(tempfile.mkdtemp(), "slotcon")
        >>> versions.poll()
        >>> versions.numbers()
        []
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        name: str,
        labels: Mapping[str, int] | None = None,
        keep: int = 1,
        warmup: bool = True,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.name = name
        self.labels = dict(labels or {})
        self.keep = keep
        self.warmup = warmup
        self._loaded = {}
        self._states = {}
        self._damaged = {}  # number to the files that could not be loaded
        self._unreadable = ""
        self._lock = threading.Lock()

    def poll(self) -> None:
        """Loads what is new and drops what is gone or old.

        A request that has got hold of a version ends with it. While the folder cannot
        be read, what is loaded stays.
        """
        try:
            there = self._there()
        except OSError as error:
            if str(error) != self._unreadable:
                logging.error("Versions cannot be looked for: %s", error)
            self._unreadable = str(error)
            return
        self._unreadable = ""
        labelled = set(self.labels.values()) & set(there)
        wanted = {number for number in labelled if self._load(number, there[number])}
        # The newest that can be loaded: a damaged one leaves the one before in place.
        newest = 0
        for number in sorted(there, reverse=True):
            if newest < self.keep and self._load(number, there[number]):
                wanted.add(number)
                newest += 1
        with self._lock:
            for number in set(self._loaded) - wanted:
                del self._loaded[number]
                self._states[number] = (_State.END, "")
                logging.info("Dropped version %d", number)

    def _there(self) -> dict[int, pathlib.Path]:
        """Dict of version to its folder; a folder of another name is none."""
        return {
            int(path.name): path
            for path in self.folder.iterdir()
            # isdigit alone is true of other scripts' digits, and of exponents.
            if path.name.isascii()
            and path.name.isdigit()
            and int(path.name) <= _LARGEST
            and (path / "saved_model.pb").exists()
        }

    def _load(self, number: int, path: pathlib.Path) -> bool:
        """Whether a version is loaded.

        One that has failed is tried again when its files change: it may have been
        copied while it was read.
        """
        with self._lock:
            if number in self._loaded:
                return True
        files = _files(path)
        with self._lock:
            if self._damaged.get(number) == files:
                return False
            self._states[number] = (_State.LOADING, "")
        try:
            version = Version(path, self.warmup)
        except Exception as error:  # whatever a damaged SavedModel raises
            text = first_line(error)
            logging.error("Version %d of %s is damaged: %s", number, self.name, text)
            with self._lock:
                self._damaged[number] = files
                self._states[number] = (_State.END, text)
            return False
        with self._lock:
            self._damaged.pop(number, None)
            self._loaded[number] = version
            self._states[number] = (_State.AVAILABLE, "")
        logging.info("Loaded version %d", number)
        return True

    def numbers(self) -> list[int]:
        """Loaded versions, in rising order."""
        with self._lock:
            return sorted(self._loaded)

    def states(self) -> dict[int, tuple[int, str]]:
        """Dict of version to (state, text of an error)."""
        with self._lock:
            return dict(self._states)

    def get(self, spec: Any) -> Version:
        """The version that a request's ModelSpec asks for.

        Raises:
            Refused: If there is none, or it names no model, or a label that none has.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        number, asked = None, f"Latest({spec.name})"
        if spec.HasField("version"):
            number = spec.version.value
        elif spec.HasField("version_label"):
            # TF Serving looks a label up before the model.
            labels = self.labels if spec.name == self.name else {}
            if spec.version_label not in labels:
                raise invalid(
                    f"Unrecognized servable version label: {spec.version_label}"
                )
            number = labels[spec.version_label]
        if number is not None:
            asked = f"Specific({spec.name}, {number})"
        with self._lock:
            if spec.name == self.name and self._loaded:
                number = max(self._loaded) if number is None else number
                if number in self._loaded:
                    return self._loaded[number]
        raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")


def _files(path):
    """What tells whether a version's files have changed."""
    found = []
    for file in sorted(path.rglob("*")):
        try:
            stat = file.stat()
        except OSError:
            continue  # gone since it was listed
        found.append((str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns))
    return found
