"""Which files are images by their names, and what is said about the others."""

from __future__ import annotations

import collections
import functools
import importlib.util
import os

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
INSTALL_HEIC = 'pip install "slotcon_tf[heic]"'
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
    ".tfrecord": "if slotcon-prepare wrote it, the data set is records",
}
_NAMED = 6  # extensions in a sentence


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
