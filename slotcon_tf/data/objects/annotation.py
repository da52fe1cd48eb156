"""What is known of an image's objects: as its set says it, and as training takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.objects.outlines import (
    Outline,
    area_of,
    polygons_of,
    segmentation_of,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """The objects of an image that are to be found.

    Attributes:
        image_id: COCO's.
        file_name: Short, for captions and results.
        height, width: Of the upright image, in pixels.
        boxes: float64 (n, 4), x1, y1, x2, y2 in pixels, as they are annotated: they may
            reach over the image's edge.
        classes: int32 (n,), 0 .. C - 1.
        polygons: A list for each object: float64 (k, 2), corners x, y in pixels, of
            each polygon; what any of them covers is the object's. Empty lists in sets
            without masks.

    Example:
        >>> Annotation(7, "a.jpg", 6, 8, np.zeros((0, 4)), np.zeros(0, np.int32), [])
        a.jpg: 8x6, 0 objects
    """

    image_id: int
    file_name: str
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray
    polygons: list[list[np.ndarray]]

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}"
        return f"{self.file_name}: {size}, {len(self.boxes)} objects"


@dataclasses.dataclass(eq=False)
class Record:
    """All that a set says of an image, crowds and what is skipped included.

    Attributes:
        image_id, file_name, height, width: As in `Annotation`.
        boxes: float64 (m, 4), x, y, width, height, as COCO has them.
        classes: int32 (m,).
        crowd: bool (m,), regions of several objects: not to be found, nor wrong to.
        skipped: bool (m,), objects that training cannot use.
        areas: float64 (m,), pixels of each; NaN where the set does not say.
        outlines: Of each object; see `Outline`. None: no masks.

    Example:
        >>> Record.of_objects(7, "a.jpg", 6, 8, [[1, 1, 4, 2]], [0]).annotation()
        a.jpg: 8x6, 1 objects
    """

    image_id: int
    file_name: str
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    skipped: np.ndarray
    areas: np.ndarray
    outlines: Sequence[Outline] | None
    _traced: dict[int, list[np.ndarray]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_objects(
        cls,
        image_id: int,
        file_name: str,
        height: int,
        width: int,
        boxes: Any,
        classes: Any,
        *,
        crowd: Any = None,
        skipped: Any = None,
        areas: Any = None,
        outlines: Sequence[Outline] | None = None,
    ) -> Record:
        """A record of lists."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        none = np.zeros(len(boxes), bool)
        return cls(
            image_id,
            file_name,
            height,
            width,
            boxes,
            np.asarray(classes, np.int32),
            none if crowd is None else np.asarray(crowd, bool),
            none if skipped is None else np.asarray(skipped, bool),
            np.full(len(boxes), np.nan) if areas is None else np.asarray(areas),
            outlines,
        )

    def parts(self) -> Iterator[bytes]:
        """What tells it from another one, for a digest; without its file's name.

        Nor masks that are images: their encoders differ between machines.
        """
        yield repr((self.image_id, self.height, self.width)).encode()
        for values in (self.boxes, self.classes, self.crowd, self.skipped):
            yield values.tobytes()
        for outline in self.outlines or ():
            if isinstance(outline, list):
                yield from (polygon.tobytes() for polygon in outline)
            elif not isinstance(outline, bytes):
                yield repr(outline).encode()

    @property
    def wanted(self) -> np.ndarray:
        """Numbers of the objects that training takes."""
        return np.flatnonzero(~(self.crowd | self.skipped))

    def annotation(self) -> Annotation:
        """What training takes; masks are traced here, where they are no polygons."""
        wanted = self.wanted
        boxes = self.boxes[wanted]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        polygons: list[list[np.ndarray]] = [[] for _ in wanted]
        if self.outlines is not None:
            polygons = [self._polygons(int(i)) for i in wanted]
        return Annotation(
            self.image_id,
            self.file_name,
            self.height,
            self.width,
            corners,
            self.classes[wanted],
            polygons,
        )

    def _polygons(self, number):
        """Of an object; what had to be traced is kept."""
        outline = self.outlines[number]  # pyright: ignore[reportOptionalSubscript]
        if isinstance(outline, list):
            return outline
        if number not in self._traced:
            self._traced[number] = polygons_of(outline)
        return self._traced[number]

    def coco(self, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """All of them in COCO's layout, without their own ids."""
        found = []
        for i, box in enumerate(self.boxes):
            area = self.areas[i]
            row = {
                "image_id": self.image_id,
                "category_id": category_ids[self.classes[i]],
                "bbox": box.tolist(),
                "iscrowd": int(self.crowd[i]),
            }
            if self.outlines is not None:
                outline = self.outlines[i]
                if outline is not None:
                    row["segmentation"] = segmentation_of(outline)
                area = area_of(outline) if np.isnan(area) else area
            row["area"] = float(box[2] * box[3] if np.isnan(area) else area)
            found.append(row)
        return found


@dataclasses.dataclass
class StoredSet:
    """A set as it lies on a disk.

    Attributes:
        records: Of its images.
        categories: Dict of id to name, in the order of the classes.
        read: Function of an image's number and of the range of deep pixels that returns
            uint8 (height, width, 3), upright.
        identify: Function of the numbers that are kept that returns an `ImageSet`.
        check: Function of them that raises where images are missing.

    Example:
        >>> StoredSet([], {3: "cat"}, read=max, identify=len).categories
        {3: 'cat'}
    """

    records: list[Record]
    categories: dict[int, str]
    read: Callable[[int, Any], np.ndarray]
    identify: Callable[[list[int]], ImageSet]
    check: Callable[[list[int]], None] = lambda numbers: None
