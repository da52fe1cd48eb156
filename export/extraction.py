"""Features of many images, batch by batch, kept on disk until all are there."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slotcon_tf.data.bad_images import printable
from slotcon_tf.files import write_text, write_whole
from slotcon_tf.images.decoding import BadImage
from slotcon_tf.progress import bar
from slotcon_tf.serving.formats import reason_of

from .sending import served_form
from .tables import write_table

_NAMED = 20  # failed images; the others are counted
Rows = dict[str, np.ndarray]  # of a batch: outputs, `ok` and `reason`


class ExtractionError(ValueError):
    """Nothing can be extracted as asked.

    Example:
        >>> raise ExtractionError("`batch_size` was another one.")
        Traceback (most recent call last):
        export.extraction.ExtractionError: `batch_size` was another one.
    """


class RequestError(RuntimeError):
    """A batch is refused for what is in it; another may be answered.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jpg"
        >>> path.touch()
        >>> def predict(files):
        ...     raise RequestError("larger than a message may be")
        >>> images = Images(path.parent, (path,))
        >>> extract(predict, images, path.with_suffix(".npz"), settings={})
        {'a.jpg': 'refused: larger than a message may be'}
    """


class Unavailable(ExtractionError):
    """The model has not answered for too long; what is done is kept.

    Example:
        >>> issubclass(Unavailable, ExtractionError)  # the same call goes on from there
        True
    """


@dataclass(frozen=True)
class Images:
    """The images of a folder, or of a list.

    Attributes:
        root: Folder that the names are relative to.
        paths: Their paths.

    Example:
        >>> Images(pathlib.Path("photos"), ("photos/a/b.jpg",)).names
        ['a/b.jpg']
    """

    root: pathlib.Path
    paths: tuple[str | os.PathLike, ...]

    @property
    def names(self) -> list[str]:
        """Relative to the root, as text."""
        return [printable(os.path.relpath(path, self.root)) for path in self.paths]


def extract(
    predict: Callable[[list[bytes]], Mapping[str, Any]],
    images: Images,
    output: str | os.PathLike,
    *,
    settings: Mapping[str, Any],
    batch_size: int = 8,
    concurrency: int = 4,
    max_image_bytes: int = 20 * 2**20,
    write: Callable[[pathlib.Path, Callable[[], Iterator[Rows]]], None] | None = None,
) -> dict[str, str]:
    """Writes a table of features, one row per image, in the order of the images.

    What is done is kept in `<output>.partial/`: the same call goes on from there.

    Args:
        predict: Function of a list of files' bytes to a dict of arrays with as many
            rows; it is called from several threads. `ok` and `reason` are the
            model's word on each image. It raises `RequestError` for a batch that is
            refused: it is halved until the culprit is alone.
        images: `Images`.
        output: pathlib.Path of a .npz or .parquet file.
        settings: Dict of what the features depend on; what is done under others is not
            gone on with.
        batch_size: Images per call.
        concurrency: Calls at once.
        max_image_bytes: Larger files are not sent, nor what becomes a larger PNG.
        write: Function of the output's path, and of a function that gives the rows of
            all images batch by batch, that writes something else than a table.

    Returns:
        Dict of path to reason of the images that failed; their rows are zeros.

    Raises:
        ExtractionError: If `<output>.partial` belongs to other images or settings.
        Unavailable: If the model is gone; give the same command again.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "a.jpg").touch()
        >>> images = Images(folder, (folder / "a.jpg",))
        >>> def sizes(files):
        ...     return {"size": np.array([len(file) for file in files])}
        >>> extract(sizes, images, folder / "sizes.npz", settings={})
        {}
        >>> np.load(folder / "sizes.npz")["size"].tolist()
        [0]
    """
    output = pathlib.Path(output)
    parts = _Parts(output, images, settings, batch_size)
    starts = range(0, len(images.paths), batch_size)
    todo = [start for start in starts if not parts.done(start)]

    def work(start):
        paths = images.paths[start : start + batch_size]
        parts.write(start, _rows(predict, paths, max_image_bytes))
        return len(paths)

    done = len(images.paths) - sum(len(images.paths[s : s + batch_size]) for s in todo)
    progress = bar(total=len(images.paths), initial=done, unit="image", desc="extract")
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(work, start) for start in todo]
        try:
            for future in concurrent.futures.as_completed(futures):
                progress.update(future.result())
        finally:
            # An interruption leaves whole parts only; those under way are done again.
            for future in futures:
                future.cancel()
            progress.close()
    reasons = parts.each(starts, ("ok", "reason"))
    rows = [pair for part in reasons for pair in zip(*part.values(), strict=True)]
    named = zip(images.names, rows, strict=True)
    failed = {name: str(reason) for name, (ok, reason) in named if not ok}
    if write is None:
        write_table(output, images.names, parts.read(starts))
    else:
        write(output, lambda: parts.each(starts))
    _list_failed(output, failed)
    parts.remove()
    return failed


def _rows(
    predict: Callable, paths: Sequence[str | os.PathLike], limit: int
) -> dict[str, np.ndarray]:
    """The table's rows of a batch."""
    content, reasons = zip(*(_read(path, limit) for path in paths), strict=True)
    reasons = list(reasons)
    good = [i for i, reason in enumerate(reasons) if reason is None]
    found = _ask(predict, [content[i] for i in good], reasons, good)
    rows = {}
    for name, values in found.items():
        shape = (len(paths), *values.shape[1:])
        rows[name] = np.zeros(shape, values.dtype)
        rows[name][good] = values
    rows["ok"] = np.array([reason == "ok" for reason in reasons])
    rows["reason"] = np.array(reasons, dtype=np.str_)
    return rows


def _read(path: str | os.PathLike, limit: int) -> tuple[bytes, str | None]:
    """A file's bytes as they are sent and None, or nothing and a reason."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return b"", "unreadable: no regular file"
        if status.st_size > limit:
            return b"", _too_large(status.st_size)
        data = served_form(pathlib.Path(path).read_bytes())
    except OSError as error:
        return b"", f"unreadable: {error.strerror or error}"
    except BadImage as error:
        return b"", str(error)
    if len(data) > limit:
        return b"", f"{_too_large(len(data))}, as the PNG that is sent"
    return data, None


def _too_large(size: int) -> str:
    return f"{size / 2**20:.1f} MiB is more than `max_image_mb`"


def _ask(predict, content, reasons, places):
    """Outputs of a batch; its reasons are written into their places."""
    if not content:
        return {}
    try:
        found = {name: _as_array(value) for name, value in predict(content).items()}
    except RequestError as error:
        if len(content) == 1:
            reasons[places[0]] = f"refused: {error}"
            return {}
        half = len(content) // 2
        parts = [
            (slice_, _ask(predict, content[slice_], reasons, places[slice_]))
            for slice_ in (slice(None, half), slice(half, None))
        ]
        return _joined(parts, len(content))
    ok = found.pop("ok", np.ones(len(content), bool))
    codes = found.pop("reason", np.zeros(len(content), int))
    for place, good, code in zip(places, ok, codes, strict=True):
        reasons[place] = "ok" if good else reason_of(int(code))
    return found


def _as_array(value):
    """Numbers, or text: an array of objects would be a pickle on the disk."""
    array = np.asarray(value)
    if array.dtype.kind not in "OS":
        return array
    texts = [x.decode() if isinstance(x, bytes) else str(x) for x in array.flat]
    return np.array(texts, np.str_).reshape(array.shape)


def _joined(parts, count):
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


class _Parts:
    """Finished batches in a folder beside the output."""

    def __init__(self, output, images, settings, batch_size):
        self.folder = output.with_name(output.name + ".partial")
        digest = hashlib.sha256("\n".join(images.names).encode()).hexdigest()
        header = {"images": digest, "batch_size": batch_size, **settings}
        file = self.folder / "settings.json"
        if file.exists():
            there = _settings_of(file)
            if there != header:
                differing = sorted(
                    k for k in {*there, *header} if there.get(k) != header.get(k)
                )
                raise ExtractionError(
                    f"{self.folder} must be of the same images and settings. Received "
                    f"other {', '.join(differing)}. Take another `output`, or delete "
                    "it to start anew."
                )
            return
        write_text(file, json.dumps(header))

    def path(self, start):
        return self.folder / f"{start:09d}.npz"

    def done(self, start):
        """Whether a part is there; one that a broken disk cut short is not."""
        return zipfile.is_zipfile(self.path(start))

    def write(self, start, rows):
        write_whole(self.path(start), lambda file: np.savez(file, **rows))

    def each(self, starts, names=()):
        """The rows of one batch after the other; of some outputs, or of all."""
        for start in starts:
            with np.load(self.path(start)) as part:
                yield {name: part[name] for name in names or part.files}

    def read(self, starts):
        """All rows; a batch of failures only has no outputs, and gives zeros."""
        parts = list(self.each(starts))
        shapes = {
            name: (values.shape[1:], values.dtype)
            for part in parts
            for name, values in part.items()
        }
        table = {}
        for name, (shape, dtype) in shapes.items():
            columns = [
                part.get(name, np.zeros((len(part["ok"]), *shape), dtype))
                for part in parts
            ]
            table[name] = np.concatenate(columns)
        return table

    def remove(self):
        shutil.rmtree(self.folder)


def _settings_of(file):
    try:
        return dict(json.loads(file.read_text()))
    except ValueError:
        return {}


def _list_failed(output, failed):
    path = output.with_name(output.name + ".failed.txt")
    if failed:
        lines = [f"{name}\t{reason}\n" for name, reason in failed.items()]
        write_text(path, "".join(lines))
    else:
        path.unlink(missing_ok=True)


def report(
    output: str | os.PathLike, images: Images, failed: Mapping[str, str]
) -> list[str]:
    """What a command prints at its end.

    Args:
        output: File of the table.
        images: All.
        failed: Path to reason of those that failed.

    Example:
        >>> report("out.npz", Images(pathlib.Path(), ("a.jpg",)), {})
        ['1 of 1 images in out.npz']
    """
    lines = [f"failed: {name} ({failed[name]})" for name in list(failed)[:_NAMED]]
    if len(failed) > _NAMED:
        lines.append(f"and {len(failed) - _NAMED} more: {output}.failed.txt")
    good = len(images.paths) - len(failed)
    return [*lines, f"{good} of {len(images.paths)} images in {output}"]
