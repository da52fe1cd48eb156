"""What a run makes of its trained model: each thing once."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import h5py
from absl import logging

from slotcon_tf import __version__
from slotcon_tf.files import write_text
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.lock import check_held
from slotcon_tf.runs.places import LEDGER
from slotcon_tf.training.auxiliaries import Troubles

# What reading a damaged `.keras` file raises.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class RunUnfinished(CommandError):
    """Training is done and saved; something that the run is for could not be made.

    Example:
        >>> RunUnfinished("The export could not be written.").status
        1
    """


class Products:
    """The record, `finished.json`, of what was made after the last step, and of what.

    A product is made where the record has it not, has it of other settings, or where
    its files are gone or of another size. So a finished run that is started again
    changes nothing, and one that was killed or failed at its end makes what is missing.

    Args:
        workdir: Of the run.
        step: The run's last; products of another one are not this run's.
        troubles: Where failures are noted.
        ended: Whether the run had ended before: without any record it may have done so
            with a version that kept none, and the model and the export of its last
            step are taken over.

    Attributes:
        missing: Names of the products that a run is for and that could not be made.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> def write():
        ...     print("Writing")
        ...     _ = (folder / "a.txt").write_text("a")
        ...     return folder / "a.txt"
        >>> Products(folder, 7, Troubles()).make("a.txt", write).name
        Writing
        'a.txt'
        >>> Products(folder, 7, Troubles()).make("a.txt", write).name
        'a.txt'
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        step: int,
        troubles: Troubles,
        ended: bool = False,
    ) -> None:
        self.workdir = pathlib.Path(workdir)
        self.step = step
        self.troubles = troubles
        self.missing: list[str] = []
        self._made = self._read()
        self._older = ended and not (self.workdir / LEDGER).exists()
        self._taken: list[Any] = []  # what models that were taken over depend on

    def make(
        self,
        name: str,
        make: Callable[[], pathlib.Path],
        *,
        needed: bool = False,
        of: Any = None,
    ) -> pathlib.Path | None:
        """Makes a product, unless it is there; failures are noted.

        Args:
            name: Of the product.
            make: Function without arguments that writes it and returns the path of the
                file or folder, inside of the work directory.
            needed: Whether the run has not ended without it.
            of: What it depends on beside the trained model, as JSON takes it.

        Returns:
            Its path, or None where it could not be made.

        Raises:
            WorkdirBusy: If another run has taken the work directory over.
        """
        check_held(self.workdir)
        of = json.loads(json.dumps(of))
        there = self._there(name, of)
        if there is None and self._older and (there := self._older_one(name, of)):
            logging.info("%s is of the version that ended the run.", there)
            self._note(name, there, of)
        if there is None:
            with self.troubles.of(name):
                there = make()
            if there is not None:
                self._note(name, there, of)
        if there is None and needed:
            self.missing.append(name)
        return there

    def path_of(self, name: str, of: Any = None) -> pathlib.Path | None:
        """Where a product is that need not be made, as of `make`; None: nowhere."""
        return self._there(name, of)

    def forget(self) -> None:
        """Drops the record: the run trains on, and what is there is not of its end."""
        check_held(self.workdir)
        self._made = {}
        (self.workdir / LEDGER).unlink(missing_ok=True)

    def _there(self, name: str, of: Any) -> pathlib.Path | None:
        known = self._made.get(name, {})
        if not known or known.get("of") != of:
            return None
        path = self.workdir / str(known.get("path"))
        return path if _size(path) == known.get("bytes") else None

    def _older_one(self, name: str, of: Any) -> pathlib.Path | None:
        """What a version that kept no record has made of the last step."""
        path = self.workdir / name
        if path.suffix == ".keras":
            if not _is_of(path, self.step, of or {}):
                return None
            self._taken.append(of)
            return path
        if name == "export" and of in self._taken:
            numbers = [p for p in path.glob("[0-9]*") if p.name.isdigit()]
            newest = max(numbers, key=lambda p: int(p.name), default=path)
            return newest if (newest / "saved_model.pb").is_file() else None
        return None

    def _note(self, name: str, path: pathlib.Path, of: Any) -> None:
        place = path.relative_to(self.workdir).as_posix()
        self._made[name] = {"path": place, "bytes": _size(path), "of": of}
        content = {"step": self.step, "slotcon_tf": __version__, "made": self._made}
        with self.troubles.of(LEDGER):
            write_text(self.workdir / LEDGER, json.dumps(content, indent=1) + "\n")

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads((self.workdir / LEDGER).read_text())
            made = content["made"] if content["step"] == self.step else {}
            return {str(name): dict(about) for name, about in made.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}


def _size(path: pathlib.Path) -> int | None:
    """Bytes of a file, those of all files in a folder, or None where there is none."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _is_of(path: pathlib.Path, step: int, of: dict[str, Any]) -> bool:
    """Whether a `.keras` file is whole, of a step, and of these settings."""
    try:
        with zipfile.ZipFile(path) as archive:
            known = json.loads(archive.read("config.json"))["config"]
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
                group: Any = weights["vars"]
                own = [v[()] for v in group.values() if v.shape == ()]
    except _UNREADABLE:
        return False
    same = all(known.get(name) == value for name, value in of.items())
    return same and [int(number) for number in own] == [step]
