"""Which files are images by their names, and finding those of folders."""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import is_remote

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".avif"),
)
HEIC_EXTENSIONS = (".heic", ".heif")  # with pillow-heif only
ALL_EXTENSIONS = (*EXTENSIONS, *HEIC_EXTENSIONS)
# What systems leave among people's files, beside names that begin with a dot.
_LEFT_BY_SYSTEMS = {
    *("__macosx", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle"),
    *("#snapshot", "$recycle.bin", "system volume information", "lost+found"),
    *("recycler", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}
INSTALL_HEIC = "pip install pillow-heif"
_RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
_OTHER_IMAGES = (".jxl", ".jp2", ".psd", ".svg", ".pdf", ".eps", ".exr", ".hdr", ".tga")
_OTHER_IMAGES += (".ppm", ".pgm", ".dcm", ".ico", ".xcf")
# What is to be done about an extension that is passed over.
_CURES = {
    **dict.fromkeys(HEIC_EXTENSIONS, INSTALL_HEIC),
    **dict.fromkeys((".jfif", ".jpe"), "rename to .jpg"),
    **dict.fromkeys((*_RAW, *_OTHER_IMAGES), "save as PNG or JPEG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "take its frames out"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"), "unpack"),
    **dict.fromkeys((".npy", ".npz"), "give the array to open_images"),
    ".tfrecord": "if trainers.prepare wrote it, the data set is records",
}
_NAMED = 6  # extensions in a sentence
# Folders below data_dir that a layout must have.
LAYOUTS = {
    "folder": (".",),
    "coco": ("train2017",),
    "coco_plus": ("train2017", "unlabeled2017"),
    "imagenet": ("train",),
}
# Files of a list whose being there is asked for at the start, evenly spaced.
_CHECKED, _CHECKED_REMOTELY = 1000, 8


@functools.cache
def reads_heic() -> bool:
    """Whether pillow-heif is there.

    Example:
        >>> reads_heic() == (".heic" in readable_extensions())
        True
    """
    return importlib.util.find_spec("pillow_heif") is not None


def readable_extensions() -> tuple[str, ...]:
    """Extensions of the images that can be read here.

    Example:
        >>> readable_extensions()[:3]
        ('.jpg', '.jpeg', '.png')
    """
    return ALL_EXTENSIONS if reads_heic() else EXTENSIONS


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nobody's data: .name, @eaDir, __MACOSX and so on.

    Example:
        >>> is_hidden(".DS_Store"), is_hidden("a.jpg")
        (True, False)
    """
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image, by its extension.

    Example:
        >>> is_image_name("a.JPG"), is_image_name("a.txt")
        (True, False)
    """
    return name.lower().endswith(readable_extensions()) and not is_hidden(name)


def is_image_file(path: str) -> bool:
    """Whether a path ends as images do, those included that cannot be read here.

    Example:
        >>> is_image_file("photos/a.heic")
        True
    """
    return path.lower().endswith(ALL_EXTENSIONS)


class PassedOver:
    """Counts the files of a folder that are not taken.

    Attributes:
        extensions: collections.Counter of extensions, "" for none.
        special: List of paths of pipes, devices and sockets.
        dead_links: List of paths.

    Example:
        >>> passed_over = PassedOver()
        >>> passed_over.add("clip.mp4")
        >>> str(passed_over)
        'Passed over: 1 .mp4 (take its frames out).'
    """

    def __init__(self) -> None:
        self.extensions: collections.Counter[str] = collections.Counter()
        self.special: list[str] = []
        self.dead_links: list[str] = []

    def add(self, name: str) -> None:
        """Counts a file that is no image by its name."""
        if not is_hidden(name):
            self.extensions[os.path.splitext(name)[1].lower()] += 1

    def __str__(self) -> str:
        """One sentence, empty where nothing was passed over."""
        parts = []
        for extension, count in self.extensions.most_common(_NAMED):
            cure = _CURES.get(extension)
            parts.append(
                f"{count} {extension or 'without extension'}"
                + (f" ({cure})" if cure else "")
            )
        rest = self.extensions.total() - sum(
            count for _, count in self.extensions.most_common(_NAMED)
        )
        if rest:
            parts.append(f"{rest} of other extensions")
        if self.special:
            parts.append(f"{len(self.special)} pipes or devices")
        if self.dead_links:
            parts.append(f"{len(self.dead_links)} dead links")
        return f"Passed over: {', '.join(parts)}." if parts else ""


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
        raise ValueError(f"Dataset {dataset!r} needs a folder. Set `data_dir`.")
    data_dir = os.fspath(data_dir)
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
