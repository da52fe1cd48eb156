"""The section of a report that shows what a detector finds."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slotcon_tf.visualize.html import Pictures, escaped, figure, section


class Detected(NamedTuple):
    """What is shown of one image.

    Attributes:
        name: Of the image.
        found: uint8 (height, width, 3), the image with what was found in it.
        found_text: The same in words.
        true: uint8 (height, width, 3), with its true objects; None: not known.
        true_text: The same in words.

    Example:
        >>> picture = np.zeros((48, 64, 3), np.uint8)
        >>> Detected("cat.jpg", picture, "cat 0.97").true_text
        ''
    """

    name: str
    found: np.ndarray
    found_text: str
    true: np.ndarray | None = None
    true_text: str = ""


def detections_section(
    detected: Sequence[Detected], min_score: float, pictures: Pictures
) -> str:
    """Each image with what was found in it, beside what is true if that is known.

    Args:
        detected: `Detected` of each image.
        min_score: What is less certain is left out of the pictures.
        pictures: `Pictures`.

    Example:
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> one = Detected("cat.jpg", image, "cat 0.97", image, "cat")
        >>> text = detections_section([one], 0.5, Pictures())
        >>> text.count("<img"), "found: cat 0.97" in text
        (2, True)
    """
    parts = []
    for number, one in enumerate(detected):
        stem = f"{number:03d}_{pathlib.PurePath(one.name).stem}"
        images = ""
        words = f"found: {one.found_text or 'nothing'}"
        if one.true is not None:
            told = f"{one.name}: {one.true_text or 'no objects'}"
            images += pictures.image(f"truth_{stem}", one.true, told)
            words = f"true: {one.true_text or 'nothing'}; {words}"
        images += pictures.image(
            f"found_{stem}", one.found, f"{one.name}: {one.found_text or 'nothing'}"
        )
        caption = f"<b>{escaped(one.name)}</b> {escaped(words)}"
        parts.append(figure(f'<div class="beside">{images}</div>', caption))
    beside = any(one.true is not None for one in detected)
    help_text = (
        "What the detector finds: boxes, masks if it has any, classes and how certain "
        f"it is of each, where that is {min_score:g} and more (or the most certain one "
        "alone, where nothing is). A class has the same colour in all pictures."
    )
    if beside:
        help_text = f"Left the truth, right what was found. {help_text}"
    content = f'<div class="pairs slots">{"".join(parts)}</div>'
    return section("detections", "Detections", help_text, content)
