"""The rows of a batch of images: what is sent, what is answered, and what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slotcon_client.errors import ExtractionError, MissingPackage, RequestError
from slotcon_client.files import LOCAL, Files, TooLarge
from slotcon_client.parts import DIGEST, LIMIT, NO_DIGEST
from slotcon_client.reasons import OK, reason_of
from slotcon_client.tables import Column, Rows, joined

REFUSED, WRONG, UNSENT = "refused: ", "wrong answer: ", "not sent: "
_AS_PNG = "`max_image_mb`, as the PNG that is sent"
# What another try may end otherwise.
_AGAIN = (REFUSED, WRONG, UNSENT)
Predict = Callable[[list[bytes]], Mapping[str, Any]]


def is_unanswered(reason: str) -> bool:
    """Whether an image failed through no fault of its own file.

    Example:
        >>> is_unanswered("refused: INTERNAL"), is_unanswered("damaged")
        (True, False)
    """
    return reason.startswith(_AGAIN)


@dataclasses.dataclass
class Batches:
    """Makes rows of images.

    Args:
        predict: As of `extract`.
        convert: Function of a file's bytes to those that are sent.
        limit: Larger files are not sent, nor what becomes larger.
        files: Where the images lie.
        needed: Outputs that must be there.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.jpg")
        >>> _ = path.write_bytes(b"abc")
        >>> sizes = Batches(lambda files: {"size": [len(file) for file in files]})
        >>> rows = sizes.rows([path])
        >>> rows["size"].tolist(), rows["reason"].tolist()
        ([3], ['ok'])
    """

    predict: Predict
    convert: Callable[[bytes], bytes] = bytes
    limit: int = 20 * 2**20
    files: Files = LOCAL
    needed: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._columns: dict[str, Column] = {}
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """To another process, which has locks of its own."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def rows(self, paths: Sequence[str | os.PathLike]) -> Rows:
        """Outputs, `ok`, `reason` and digests of images; zeros where it is not ok.

        Beside these, the limit that they were read with.

        Raises:
            ExtractionError: If an answer is of another form than those before.
        """
        content, reasons, digests = zip(*map(self._read, paths), strict=True)
        reasons = list(reasons)
        good = [i for i, reason in enumerate(reasons) if reason is None]
        found = self._ask([content[i] for i in good], reasons, good)
        rows = {}
        for name, values in found.items():
            shape = (len(paths), *values.shape[1:])
            rows[name] = np.zeros(shape, values.dtype)
            rows[name][good] = values
            # A row that is not ok holds nothing that looks like features.
            rows[name][[i for i in good if reasons[i] != "ok"]] = _nothing(values)
        rows["ok"] = np.array([reason == "ok" for reason in reasons])
        rows["reason"] = np.array(reasons, dtype=np.str_)
        rows[DIGEST] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        rows[LIMIT] = np.array(self.limit)
        return rows

    def check(self, columns: Mapping[str, Column]) -> None:
        """Refuses an answer of another form than those before.

        Raises:
            ExtractionError: It says which.
        """
        outputs = {n: c for n, c in columns.items() if n not in ("ok", "reason")}
        missing = [name for name in self.needed if name not in outputs]
        if outputs and missing:
            raise ExtractionError(
                f"The answers must have {missing[0]}. Received: {sorted(outputs)}. For "
                "rows of objects, ask for signature=objects or instances."
            )
        with self._guard:
            if self._columns and outputs and outputs.keys() != self._columns.keys():
                raise ExtractionError(
                    f"All answers must be alike. Received: {sorted(outputs)}, and "
                    f"{sorted(self._columns)} before."
                )
            self._columns = joined([self._columns, outputs])

    def is_current(self, paths: Sequence[str | os.PathLike], rows: Rows | None) -> bool:
        """Whether rows are of what the files hold now, and need no other try.

        Args:
            paths: Of the images.
            rows: Their `reason`, digests and limit; None for none.
        """
        if rows is None or len(rows[DIGEST]) != len(paths):
            return False
        reasons = rows["reason"].tolist()
        if any(map(is_unanswered, reasons)):
            return False
        # Of a file that is itself too large the bytes tell: it is read now, or not.
        if int(rows[LIMIT]) != self.limit and any(_AS_PNG in r for r in reasons):
            return False
        digests = rows[DIGEST]
        return all(
            self._digest(path) == digest.tobytes()
            for path, digest in zip(paths, digests, strict=True)
        )

    def _digest(self, path):
        try:
            return hashlib.sha256(self.files.read(path, self.limit)).digest()
        except (OSError, ValueError):
            return NO_DIGEST

    def _read(self, path):
        """A file's bytes as they are sent, None or a reason why not, and its digest."""
        digest = NO_DIGEST
        try:
            data = self.files.read(path, self.limit)
            digest = hashlib.sha256(data).digest()
            data = self.convert(data)
        except MissingPackage as error:  # of this image; others may be plain
            return b"", UNSENT + str(error), digest
        except OSError as error:
            return b"", f"unreadable: {error.strerror or error}", digest
        except TooLarge as error:
            return b"", _too_large(error.size), digest
        except ValueError as error:  # BadImage
            return b"", str(error), digest
        if len(data) > self.limit:
            return b"", f"{_mib(len(data))} is more than {_AS_PNG}", digest
        return data, None, digest

    def _ask(self, content, reasons, places):
        """Outputs of a batch; its reasons are written into their places."""
        if not content:
            return {}
        try:
            found = {n: _as_array(v) for n, v in self.predict(content).items()}
        except RequestError as error:
            if len(content) == 1:
                reasons[places[0]] = REFUSED + str(error)
                return {}
            half = len(content) // 2
            parts = [
                (slice_, self._ask(content[slice_], reasons, places[slice_]))
                for slice_ in (slice(None, half), slice(half, None))
            ]
            return _joined_halves(parts, len(content))
        _check_counts(found, len(content))
        ok = found.pop("ok", np.ones(len(content), bool))
        codes = found.pop("reason", np.where(ok, OK, -1))
        self.check({name: Column.of(values) for name, values in found.items()})
        broken = _not_finite(found, len(content))
        for i, place in enumerate(places):
            reasons[place] = _reason(bool(ok[i]), int(codes[i]), broken.get(i))
        return found


def _reason(ok, code, broken):
    if ok != (code == OK):
        return f"{WRONG}ok {str(ok).lower()} with reason {code}"
    if ok and broken:
        return f"{WRONG}{broken} is not finite"
    return "ok" if ok else reason_of(code)


def _not_finite(found, count):
    """Dict of row to the output that has NaN or infinity there."""
    broken = {}
    for name, values in found.items():
        if values.dtype.kind == "f":
            rows = np.isfinite(values).reshape(count, -1).all(1)
            broken |= {int(i): name for i in np.flatnonzero(~rows)}
    return broken


def _check_counts(found, count):
    for name, values in found.items():
        if values.ndim < 1 or len(values) != count:
            raise ExtractionError(
                "The model must answer with a row per image. Received: "
                f"{name} of shape {list(values.shape)} for {count} images."
            )


def _nothing(values):
    return values.dtype.type()


def _too_large(size: int) -> str:
    return f"{_mib(size)} is more than `max_image_mb`"


def _mib(size):
    return f"{size / 2**20:.1f} MiB"


def _as_array(value):
    """Numbers, or text: an array of objects would be a pickle on the disk."""
    array = np.asarray(value)
    if array.dtype.kind not in "OS":
        return array
    texts = [
        x.decode(errors="backslashreplace") if isinstance(x, bytes) else str(x)
        for x in array.flat
    ]
    return np.array(texts, np.str_).reshape(array.shape)


def _joined_halves(parts, count):
    """Outputs of halves as those of a whole; zeros where a half has none."""
    found = {}
    for slice_, outputs in parts:
        for name, values in outputs.items():
            whole = found.get(name, np.zeros((count, *values.shape[1:]), values.dtype))
            # A text may be longer than those of the other half.
            whole = whole.astype(np.result_type(whole, values), copy=False)
            whole[slice_] = values
            found[name] = whole
    return found
