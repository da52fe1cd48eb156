"""One page about one run: its settings, scores, curves and pictures."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slotcon_tf.visualize.detection_section import detections_section
from slotcon_tf.visualize.html import (
    Pictures,
    escaped,
    folded,
    page,
    paragraph,
    table,
)
from slotcon_tf.visualize.sections import (
    components_section,
    curves_section,
    prototypes_section,
    scores_section,
    slots_section,
    usage_section,
)

if TYPE_CHECKING:
    from slotcon_tf.visualize.prototypes import PrototypeAtlas

_NO_GROUPS = (
    "This is an encoder alone, without prototypes: there are no groups to show, only "
    "its dense features."
)


@dataclass
class Report:
    """What a report shows; what is missing is left out.

    Attributes:
        name: Of the run.
        facts: Dict of text, for the head.
        flags: Text of the run's flags.
        tables, troubles: Of `slotcon_tf.visualize.scores.read_scores`.
        history: Of `slotcon_tf.visualize.charts.read_history`, or None.
        shown: List of (name, image uint8 (height, width, 3), `ImageMaps`).
        atlas: `PrototypeAtlas`, or None of an encoder alone.
        skipped: Dict of path to reason, of images that could not be used.
        max_prototypes: Prototypes shown at most.
        detected: List of `Detected`, of a detector.
        min_score: What is less certain was not drawn there.

    Example:
        >>> import numpy as np
        >>> from slotcon_tf.visualize.maps import ImageMaps
        >>> maps = ImageMaps(np.random.default_rng(0).normal(size=(2, 2, 8)))
        >>> shown = [("cat.jpg", np.zeros((64, 64, 3), np.uint8), maps)]
        >>> text = Report("coco", {"epochs": 800}, shown=shown).html()
        >>> "<h1>coco</h1>" in text, "Dense features" in text
        (True, True)
    """

    name: str
    facts: dict
    flags: str = ""
    tables: list = field(default_factory=list)
    troubles: list = field(default_factory=list)
    history: tuple | None = None
    shown: list = field(default_factory=list)
    atlas: PrototypeAtlas | None = None
    skipped: dict = field(default_factory=dict)
    max_prototypes: int = 64
    detected: list = field(default_factory=list)
    min_score: float = 0.0

    def html(self, folder: pathlib.Path | None = None) -> str:
        """The page.

        Args:
            folder: Every picture is written there as a PNG file too; None: nowhere.

        Returns:
            HTML of a whole document that refers to nothing outside of itself.
        """
        pictures, sections = Pictures(folder), {}
        if self.tables or self.troubles:
            sections["scores", "Scores"] = scores_section(self.tables, self.troubles)
        if self.history and len(self.history[0]):
            curves = curves_section(self.history, pictures)
            sections["curves", "Training curves"] = curves
        if self.detected:
            found = detections_section(self.detected, self.min_score, pictures)
            sections["detections", "Detections"] = found
        if self.atlas is not None:
            total = self.atlas.num_prototypes
            sections["slots", "Groups"] = slots_section(self.shown, total, pictures)
        components = components_section(self.shown, pictures)
        sections["components", "Dense features"] = components
        if self.atlas is not None:
            prototypes = prototypes_section(self.atlas, self.max_prototypes, pictures)
            sections["prototypes", "Prototypes"] = prototypes
            usage = usage_section(self.atlas, pictures)
            sections["usage", "Prototype usage"] = usage
        return page(f"{self.name}: report", self._head(), sections)

    def _head(self):
        facts = "".join(
            f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
            for name, value in self.facts.items()
        )
        parts = [f"<h1>{escaped(self.name)}</h1>", f'<dl class="facts">{facts}</dl>']
        if self.atlas is None and not self.detected:
            parts.append(paragraph(_NO_GROUPS, "note"))
        if self.skipped:
            count = len(self.skipped)
            images = "image was" if count == 1 else "images were"
            parts.append(
                folded(
                    f"{count} bad {images} left out",
                    table(["file", "why"], self.skipped.items()),
                )
            )
        if self.flags:
            parts.append(
                folded("Every flag of this run", f"<pre>{escaped(self.flags)}</pre>")
            )
        return "".join(parts)
