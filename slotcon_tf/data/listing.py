"""Finding image files: folders in the usual layouts, and lists."""

import os

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".avif"),
)
# Folders below data_dir that a layout must have.
LAYOUTS = {
    "folder": (".",),
    "coco": ("train2017",),
    "coco_plus": ("train2017", "unlabeled2017"),
    "imagenet": ("train",),
}


def is_image_name(name):
    """Whether a file of this name is taken for an image, by its extension."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def is_remote(path):
    """Whether a path needs tf.io.gfile."""
    return "://" in path


def list_images(dataset, data_dir):
    """Sorted paths of the images of a folder in one of `LAYOUTS`.

    Hidden files and folders are left out. Links are followed, each folder once.

    Raises:
        ValueError: If no folder is named, or it holds no image.
        FileNotFoundError: If a folder of the layout is missing.
    """
    if not data_dir:
        raise ValueError(
            f"Dataset {dataset!r} needs data_dir, a folder. Set --data_dir."
        )
    data_dir = os.fspath(data_dir)
    paths = []
    for part in LAYOUTS[dataset]:
        folder = data_dir if part == "." else os.path.join(data_dir, part)
        if not tf.io.gfile.isdir(folder):
            raise FileNotFoundError(
                f"Dataset {dataset!r} needs the folder {folder}. Received: no such "
                "folder. Check --data_dir."
            )
        walk = _walk_remote if is_remote(folder) else _walk_local
        paths += walk(folder)
    if not paths:
        raise ValueError(
            f"The folder {data_dir} must hold images ({', '.join(EXTENSIONS)}). "
            "Received: none in it or below it. Check --data_dir."
        )
    return sorted(paths)


def _walk_remote(folder):
    for where, folders, files in tf.io.gfile.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        yield from (os.path.join(where, n) for n in files if is_image_name(n))


def _walk_local(folder):
    seen, waiting = set(), [folder]
    while waiting:
        where = waiting.pop()
        found = os.stat(where)
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_symlink():
                        entry.stat()  # is_dir and is_file do not tell of dead links
                except OSError as error:  # a link to nothing, or to itself
                    reason = error.strerror
                    logging.warning("Skipped %s: %s", printable(entry.path), reason)
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.is_file() and is_image_name(entry.name):
                    yield entry.path


def read_list(path):
    """Paths of a text file: one per line, relative to it, a label behind it or not.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it names nothing.
    """
    if not path or not tf.io.gfile.exists(os.fspath(path)):
        raise FileNotFoundError(
            f"Dataset 'list' needs a text file of image paths. Received: {path!r}, no "
            "such file. Check --data_dir."
        )
    folder = os.path.dirname(os.fspath(path))
    paths = []
    with tf.io.gfile.GFile(os.fspath(path)) as lines:
        for line in map(str.strip, lines):
            if not line or line.startswith("#"):
                continue
            whole, _, label = line.rpartition(" ")
            # Lists often carry a label behind the path.
            name = whole.strip() if label and is_image_name(whole.strip()) else line
            paths.append(os.path.join(folder, name))
    if not paths:
        raise ValueError(f"The list {path} must name images. Received: an empty list.")
    return paths
