"""The record of images that could not be used."""

import os
import threading

from absl import logging

_NAMED = 100  # warnings; what follows is in the list and counted


class TooManyBadImages(RuntimeError):
    """More images cannot be used than the run allows."""


def printable(path):
    """A path as text that every terminal and file takes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


class BadImages:
    """Names each bad image once, lists them, and stops a run that has too many.

    Args:
        num_images: Of the source.
        max_share: Largest share of bad images.

    Attributes:
        reasons: Dict of path to reason.
        fatal: The error that stopped the run, or None.
    """

    def __init__(self, num_images, max_share):
        self.num_images = num_images
        self.max_share = max_share
        self.reasons = {}
        self.fatal = None
        self._list = None
        self._listed = set()
        self._lock = threading.Lock()

    def write_to(self, path):
        """Lists the bad images in a text file, one per line, as they are found.

        What the file lists already, from an earlier part of the run, stays.
        """
        self._list = path
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                self._listed = {line.partition("\t")[0] for line in lines}

    def add(self, path, reason):
        """Records an image.

        Raises:
            TooManyBadImages: If there are too many now.
        """
        with self._lock:
            if path in self.reasons:
                return
            self.reasons[path] = reason
            count = len(self.reasons)
            if count <= _NAMED:
                logging.warning("Skipped %s: %s", printable(path), reason)
            if count == _NAMED:
                logging.warning("More bad images are counted, not named.")
            if self._list and printable(path) not in self._listed:
                with open(self._list, "a", encoding="utf-8") as lines:
                    lines.write(f"{printable(path)}\t{printable(reason)}\n")
            if count > self.max_share * self.num_images:
                self.fatal = TooManyBadImages(
                    f"At most {self.max_share:.0%} of the images may be bad. Received: "
                    f"{count} bad ones among {self.num_images}, the last "
                    f"{printable(path)} ({reason}). Mend or remove them "
                    "(trainers.check_data lists them), or raise max_bad_share."
                )
                raise self.fatal
