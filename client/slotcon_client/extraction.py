"""Features of many images, batch by batch, kept on disk until all are there."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from slotcon_client.batches import Batches, Predict, is_unanswered
from slotcon_client.errors import ExtractionError
from slotcon_client.files import LOCAL, Files, printable
from slotcon_client.folder_output import FolderOutput
from slotcon_client.outputs import FileOutput
from slotcon_client.tables import ENDINGS, Rows

_NAMED = 20  # failed images; the others are counted
ROWS = ("images", "objects")
SHARD_IMAGES = 4096  # of a folder's shard


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a folder, or of a list; all, or a part of them.

    Attributes:
        root: Folder that the names are relative to.
        paths: Their paths.
        part: (i, n) if they are the i-th of n parts, from 0.
        first: Number of the first among all.
        listed: Number and digest of all; their own where None.
        files: Where they lie.

    Example:
        >>> images = Images(pathlib.Path("photos"), ("photos/a/b.jpg", "photos/c.jpg"))
        >>> images.names, images.shard(1, 2).names
        (['a/b.jpg', 'c.jpg'], ['c.jpg'])
    """

    root: str | os.PathLike
    paths: tuple[str | os.PathLike, ...]
    part: tuple[int, int] | None = None
    first: int = 0
    listed: tuple[int, str] | None = None
    files: Files = LOCAL

    @functools.cached_property
    def names(self) -> list[str]:
        """Relative to the root, as text."""
        root = os.fspath(self.root)
        return [printable(_relative(os.fspath(path), root)) for path in self.paths]

    @functools.cached_property
    def _digest(self):
        """Of the names: of millions, it takes seconds."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    @property
    def about(self) -> dict[str, Any]:
        """Which images they are, among which; plain JSON."""
        count, digest = self.listed or (len(self.paths), self._digest)
        found = {"images": digest, "count": count}
        if self.part is not None:
            found |= {"shard": list(self.part), "first": self.first}
            found |= {"number": len(self.paths)}
        return found

    def shard(self, number: int, count: int) -> Self:
        """A part of them, one after the other; the same of the same images always.

        Args:
            number: Of the part, from 0.
            count: Of all parts, which differ by one image at most.

        Raises:
            ExtractionError: If there is no such part.
        """
        if not 0 <= number < count:
            raise ExtractionError(
                f"`shard` must be i/n with i from 0 to n - 1. Received: {number}/"
                f"{count}."
            )
        total = len(self.paths)
        start, end = (total * i // count for i in (number, number + 1))
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[start:end]),
            part=(number, count),
            first=start,
            listed=(total, self._digest),
        )


def _relative(path, root):
    """To the root; a path of another store is its own name."""
    if "://" in path and path.partition("://")[0] != root.partition("://")[0]:
        return path
    return os.path.relpath(path, root)


class Failed(dict[str, str]):
    """Name to reason of the images that failed.

    Example:
        >>> Failed({"a.jpg": "damaged", "b.jpg": "refused: too much"}).unanswered
        ['b.jpg']
    """

    @property
    def unanswered(self) -> list[str]:
        """Those that the model refused, or gave a wrong answer for."""
        return [name for name, reason in self.items() if is_unanswered(reason)]


def shard_path(output: str, number: int, count: int) -> str:
    """Where a part of an output goes.

    Example:
        >>> shard_path("features.npz", 1, 4)
        'features-00001-of-00004.npz'
    """
    stem, ending = os.path.splitext(output.rstrip("/"))
    return f"{stem}-{number:05d}-of-{count:05d}{ending}"


def extract(
    predict: Predict,
    images: Images,
    output: str | os.PathLike,
    *,
    settings: Mapping[str, Any],
    batch_size: int = 8,
    concurrency: int = 4,
    max_image_bytes: int = 20 * 2**20,
    write: Callable[[pathlib.Path, Callable[[], Iterator[Rows]]], None] | None = None,
    rows: str = "images",
    shard_images: int = SHARD_IMAGES,
    convert: Callable[[bytes], bytes] | None = None,
    files: Files = LOCAL,
) -> Failed:
    """Writes a table of features, one row per image, in the order of the images.

    What is done is kept in `<output>.partial/`: the same call goes on from there. It
    reads the images again that it has features of, and makes those anew whose bytes
    have changed, so that each row is of what its file holds.

    Args:
        predict: Function of a list of files' bytes to a dict of arrays with as many
            rows; it is called from several threads. `ok` and `reason` are the
            model's word on each image. It raises `RequestError` for a batch that is
            refused: it is halved until the culprit is alone.
        images: `Images`.
        output: Path of a .npz or .parquet file, or, without an ending, of a folder of
            .npy shards; see `slotcon_client.shards`.
        settings: Dict of what the features depend on, the model's version among it;
            what is done under others is not gone on with.
        batch_size: Images per call.
        concurrency: Calls at once.
        max_image_bytes: Larger files are not sent, nor what becomes a larger PNG.
        write: Function of the output's path, and of a function that gives the rows of
            all images batch by batch, that writes something else than a table.
        rows: "images", or "objects" for a row per object that `valid` tells of.
        shard_images: Images of a folder's shard.
        convert: Function of a file's bytes to those that are sent; default:
            `slotcon_client.sending.served_form`.
        files: Where the output lies.

    Returns:
        `Failed` of the images that failed; their rows are zeros, with `ok` false.
        While some are `unanswered`, what is done is kept for another try.

    Raises:
        ExtractionError: If `<output>.partial` belongs to other images, settings or
            another version, if another process writes the same output, or if answers
            are of different forms.
        Unavailable: If the model is gone; give the same command again.

    Example:
        >>> import tempfile
        >>> import numpy as np
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
    if convert is None:
        from slotcon_client.sending import served_form

        convert = served_form
    needed = ("valid",) if rows == "objects" else ()
    batches = Batches(predict, convert, max_image_bytes, images.files, needed)
    made_with = {**settings, "rows_per": rows.removesuffix("s")}
    path = os.fspath(output)
    given = {
        "path": path,
        "images": images,
        "settings": made_with,
        "batches": batches,
        "batch_size": batch_size,
        "files": files,
        "per_object": rows == "objects",
    }
    if is_file(path) or write:
        return Failed(FileOutput(**given, write=write).run(concurrency))
    return Failed(FolderOutput(**given, shard_images=shard_images).run(concurrency))


def is_file(output: str) -> bool:
    """Whether an output is one file, not a folder of shards.

    Example:
        >>> is_file("features.npz"), is_file("features")
        (True, False)
    """
    return output.endswith(ENDINGS)


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
