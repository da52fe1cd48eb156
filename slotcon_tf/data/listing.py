"""Finding image files: folders in the usual layouts, and lists."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.extensions import EXTENSIONS as EXTENSIONS
from slotcon_tf.data.extensions import (
    HEIC_EXTENSIONS,
    INSTALL_HEIC,
    PassedOver,
    is_hidden,
    is_image_file,
    is_image_name,
    readable_extensions,
    reads_heic,
)
from slotcon_tf.data.lists import image_column, read_rows
from slotcon_tf.data.reading import is_remote, remote_errors, without_scheme

# Folders below data_dir that a layout must have.
LAYOUTS = {
    "folder": (".",),
    "coco": ("train2017",),
    "coco_plus": ("train2017", "unlabeled2017"),
    "imagenet": ("train",),
}
# Files of a list whose being there is asked for at the start, evenly spaced.
_CHECKED, _CHECKED_REMOTELY = 1000, 8
_ALLOW = (
    "If you trust the list, set `allow_remote_paths` (allow_remote=True in Python)."
)


def list_images(
    dataset: str,
    data_dir: str | os.PathLike[str] | None,
    passed_over: PassedOver | None = None,
) -> list[str]:
    """Sorted paths of the images of a folder in one of `LAYOUTS`.

    Files and folders that are hidden, or left by systems (@eaDir, __MACOSX), are left
    out; what else is passed over is said in a warning. Links are followed, each folder
    once.

    Args:
        dataset: One of `LAYOUTS`.
        data_dir: Folder.
        passed_over: `PassedOver` that counts what is not taken, or None.

    Raises:
        ValueError: If no folder is named, or it holds no image.
        FileNotFoundError: If a folder of the layout is missing.
        OSError: If a folder cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("b.jpg", "a.png", ".hidden.jpg"):
        ...     (folder / name).touch()
        >>> [os.path.basename(path) for path in list_images("folder", folder)]
        ['a.png', 'b.jpg']
    """
    if not data_dir:
        raise ValueError(
            f"Dataset {dataset!r} needs `data_dir`, a folder. Received: none."
        )
    data_dir = without_scheme(os.fspath(data_dir))
    passed_over = PassedOver() if passed_over is None else passed_over
    paths = []
    for part in LAYOUTS[dataset]:
        folder = data_dir if part == "." else os.path.join(data_dir, part)
        if not tf.io.gfile.isdir(folder):
            raise FileNotFoundError(
                f"Dataset {dataset!r} needs the folder {folder}. Received: no such "
                "folder. Check the path."
            )
        walk = _walk_remote if is_remote(folder) else _walk_local
        paths += walk(folder, passed_over)
    if not paths:
        raise ValueError(
            f"The folder {data_dir} must hold images "
            f"({', '.join(readable_extensions())}). Received: 0 images in it or below "
            f"it. {str(passed_over) or 'It holds no files.'} Check the path."
        )
    if str(passed_over):
        logging.warning("%s: %d images. %s", data_dir, len(paths), passed_over)
    return sorted(paths)


def _walk_remote(folder, passed_over):
    for where, folders, files in tf.io.gfile.walk(folder):
        # Some file systems end the names of folders in a slash.
        folders[:] = [f for f in folders if not is_hidden(f.rstrip("/"))]
        for name in files:
            if is_image_name(name):
                yield os.path.join(where, name)
            else:
                passed_over.add(name)


def _walk_local(folder, passed_over):
    seen, waiting = set(), [folder]
    while waiting:
        where = waiting.pop()
        found = os.stat(where)
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(where) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                try:
                    if entry.is_symlink():
                        entry.stat()  # is_dir and is_file do not tell of dead links
                except OSError as error:  # a link to nothing, or to itself
                    reason = error.strerror
                    logging.warning("Skipped %s: %s", printable(entry.path), reason)
                    passed_over.dead_links.append(entry.path)
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif not entry.is_file():
                    passed_over.special.append(entry.path)
                elif is_image_name(entry.name):
                    yield entry.path
                else:
                    passed_over.add(entry.name)


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
    path = without_scheme(os.fspath(path)) if path else path
    if not path or not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"Dataset 'list' needs a text file of image paths. Received: {path!r}, no "
            "such file. Check the path."
        )
    rows, header = read_rows(path)
    if not rows:
        raise ValueError(f"The list {path} must name images. Received: an empty list.")
    folder = os.path.dirname(path)
    names = [without_scheme(_image_of(row, header, folder)) for row in rows]
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
        "to the list" + (", and parted by /." if "\\" in paths[0] else "."),
    )
    unread = sum(p.lower().endswith(HEIC_EXTENSIONS) for p in paths)
    if unread and not reads_heic():
        logging.warning("%s: %d files are HEIC: %s.", path, unread, INSTALL_HEIC)
    return paths


def check_there(paths: Sequence[str], what: str, hint: str = "") -> None:
    """Raises FileNotFoundError if none of some paths, spread evenly, is there.

    Args:
        paths: Of files.
        what: Names them, in the message.
        hint: What may be wrong.

    Example:
        >>> check_there(["no/a.jpg", "no/b.jpg"], "The list")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        FileNotFoundError: The list must name files that are there. Received: none ...
    """
    remote = sum(map(is_remote, paths[:: max(1, len(paths) // 100)]))
    count = min(len(paths), _CHECKED_REMOTELY if remote else _CHECKED)
    spread = [paths[i * len(paths) // count] for i in range(count)]
    if not any(map(_may_be_there, spread)):
        asked = "" if count == len(paths) else f" of {count} that were looked for"
        raise FileNotFoundError(
            f"{what} must name files that are there. Received: none{asked} is, of "
            f"{len(paths)} named. {hint}".rstrip()
        )
    if not remote and all(map(os.path.isdir, spread)):
        raise FileNotFoundError(
            f"{what} must name files. Received: {len(paths)} folders, the first "
            f"{printable(os.fspath(paths[0]))}. Name the images in them; a folder "
            "with links to several is one data set, too."
        )


def _may_be_there(path):
    """False only where a path is surely not there."""
    if is_remote(path):
        try:
            return tf.io.gfile.exists(path)
        except tf.errors.OpError:
            return True  # reading says what is the matter
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


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
