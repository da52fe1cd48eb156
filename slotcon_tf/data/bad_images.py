"""The record of images that could not be used."""

from __future__ import annotations

import math
import os
import threading
from typing import NoReturn

from absl import logging

from slotcon_client.files import printable
from slotcon_tf.files import write_text

_NAMED = 100  # warnings; what follows is in the list and counted
# A share of fewer images than the source has says little: from so many on, and so many
# standard deviations above the limit, it is told from chance.
_FEW_IMAGES, _DEVIATIONS = 100, 5


class TooManyBadImages(RuntimeError):
    """More images cannot be used than the run allows.

    Example:
        >>> bad = BadImages(num_images=10, max_share=0.0)
        >>> bad.add("a.jpg", "the file is empty")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        slotcon_tf.data.bad_images.TooManyBadImages: At most 0% of the images may ...
    """


class BadImages:
    """Names each bad image once, lists them, and stops a run that has too many.

    Too many are more than the share of the source; where images are read in random
    order, also so many of those read so far that a source within its limit would hardly
    ever show them. From then on everything raises.

    Args:
        num_images: Of the source.
        max_share: Largest share of bad images.

    Attributes:
        at_random: Whether images are read in random order. Of others, bad ones may lie
            together, and the first ones say nothing of the rest.
        reasons: Dict of path to reason.
        fatal: The error that stopped the run, or None.
        read: Number of images read so far.

    Example:
        >>> bad = BadImages(num_images=1000, max_share=0.1)
        >>> bad.add("a.jpg", "the file is empty")
        >>> bad.reasons
        {'a.jpg': 'the file is empty'}
    """

    def __init__(self, num_images: int, max_share: float) -> None:
        self.num_images = num_images
        self.max_share = max_share
        self.at_random = False
        self.reasons: dict[str, str] = {}
        self.fatal: TooManyBadImages | None = None
        self.read = 0
        self._list: str | os.PathLike[str] | None = None
        self._listed: set[str] = set()
        self._lock = threading.Lock()

    def write_to(self, path: str | os.PathLike[str]) -> None:
        """Lists the bad images in a text file, one per line, as they are found.

        What the file lists already, from an earlier part of the run, stays, but for
        half a line that a killed one left.
        """
        self._list = path
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as lines:
                text = lines.read()
            whole = text[: text.rfind("\n") + 1]
            write_text(path, whole)
            self._listed = {line.partition("\t")[0] for line in whole.split("\n")}

    def check(self) -> None:
        """Raises `TooManyBadImages` if there were too many once."""
        if self.fatal:
            raise self.fatal

    def good(self, path: str) -> None:
        """Notes an image that was read. It may have been bad, on a disk then away.

        Raises:
            TooManyBadImages: If there were too many before.
        """
        if self.fatal:
            raise self.fatal
        self.read += 1
        if self.reasons and path in self.reasons:
            with self._lock:
                self.reasons.pop(path, None)
            logging.info("%s can be read again.", printable(path))

    def add(self, path: str, reason: str) -> None:
        """Records an image.

        Raises:
            TooManyBadImages: If there are too many now, or were before.
        """
        with self._lock:
            self.check()
            self.read += 1
            if path in self.reasons:
                return
            self.reasons[path] = reason
            count = len(self.reasons)
            if count <= _NAMED:
                logging.warning("Skipped %s: %s", printable(path), reason)
            if count == _NAMED:
                logging.warning("More bad images are counted, not named.")
            self._put_on_list(printable(path), printable(reason))
            among = self._too_many(count)
            if among:
                self.stop(
                    f"At most {self.max_share:.0%} of the images may be bad. Received: "
                    f"{count} bad ones among {among}, the last "
                    f"{printable(path)} ({reason}). Mend or remove them "
                    "(slotcon-check-data lists them), or raise max_bad_share."
                )

    def _put_on_list(self, path, reason):
        """Without a place for the list the images are counted all the same."""
        if not self._list or path in self._listed:
            return
        try:
            with open(self._list, "a", encoding="utf-8") as lines:
                lines.write(f"{path}\t{reason}\n")
        except OSError as error:
            told = error.strerror or error
            logging.warning("%s cannot be written: %s. It is left.", self._list, told)
            self._list = None
        self._listed.add(path)

    def stop(self, message: str) -> NoReturn:
        """Ends the use of the source.

        Raises:
            TooManyBadImages: With the message.
        """
        self.fatal = TooManyBadImages(message)
        raise self.fatal

    def _too_many(self, count):
        """Among how many images `count` bad ones are too many, as text; or None."""
        share, read = self.max_share, min(self.read, self.num_images)
        if count > share * self.num_images:
            return str(self.num_images)
        if not self.at_random:
            return None
        chance = math.sqrt(max(share * (1 - share), 0.0) * read)
        if read >= _FEW_IMAGES and count > share * read + _DEVIATIONS * chance:
            return f"the first {read} read, of {self.num_images}"
        return None
