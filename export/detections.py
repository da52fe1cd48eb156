"""Objects in many images: COCO's results as JSON, and pictures."""

from __future__ import annotations

import json
import os
import pathlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from slotcon_tf.data.labelled.json_entries import read_json
from slotcon_tf.files import write_text, write_whole
from slotcon_tf.images.decoding import decode_image

from .extraction import ExtractionError, Images, Rows

ENDING = ".json"
SIGNATURE = "detect"
# What results are made of; a detector without masks has none.
NEEDED = ("boxes", "scores", "classes", "names", "number", "size")


class ResultWriter:
    """Writes what a detector found in a folder of images.

    `found.json` has COCO's results; `found.images.json`, beside it, says which image
    and which category their numbers mean.

    Args:
        images: `Images` that are looked at.
        annotations: A file in COCO's layout, whose numbers of images (by file name) and
            of categories (by name) are taken. None: an image's number is its file's
            name where all names are numbers, else its place, from 1; a category's is
            the class's, from 1.
        pictures: Folder for a picture of each image with its objects, or None.
        min_score: Objects of less are left out of the pictures.

    Raises:
        ExtractionError: If an image is not in the annotations.
        OSError, ValueError: If those cannot be read.

    Example:
        >>> writer = ResultWriter(Images(pathlib.Path(), ("000042.jpg", "7.jpg")))
        >>> writer.image_ids
        [42, 7]
    """

    def __init__(
        self,
        images: Images,
        annotations: str | os.PathLike | None = None,
        pictures: str | os.PathLike | None = None,
        min_score: float = 0.5,
    ) -> None:
        self.images = images
        self.pictures = None if pictures is None else pathlib.Path(pictures)
        if self.pictures is not None:  # told before the work if it cannot be
            self.pictures.mkdir(parents=True, exist_ok=True)
        self.min_score = min_score
        self.known: dict[str, int] | None = None
        if annotations is None:
            self.image_ids = _own_ids(images.names)
        else:
            self.image_ids, self.known = _given_ids(images.names, annotations)

    def __call__(
        self, output: pathlib.Path, batches: Callable[[], Iterator[Rows]]
    ) -> None:
        """Writes the files; see `export.extraction.extract`.

        Args:
            output: The JSON file.
            batches: Function that gives the rows of all images, batch by batch.

        Raises:
            ExtractionError: If the answers are no detector's, or a class has no
                category in the annotations.
        """
        names = _class_names(batches())
        categories = self._categories(names)
        listed: list[dict[str, Any]] = []

        def write(file: BinaryIO) -> None:
            separator = b"["
            for place, row in enumerate(_each(batches())):
                if not row["ok"]:
                    continue
                for result in self._results(place, row, names, categories, listed):
                    file.write(separator + json.dumps(result).encode())
                    separator = b",\n"
            file.write(b"[]\n" if separator == b"[" else b"]\n")

        write_whole(output, write)
        about = {
            "images": listed,
            "categories": [{"id": categories[c], "name": names[c]} for c in categories],
        }
        write_text(output.with_suffix(".images.json"), json.dumps(about) + "\n")

    def _categories(self, names: Mapping[int, str]) -> dict[int, int]:
        """Number of the category of each class."""
        if self.known is None:
            return {number: number + 1 for number in names}
        unknown = sorted(set(names.values()) - self.known.keys())
        if unknown:
            raise ExtractionError(
                "`annotations` must have a category of every class that is found. "
                f"Received: none of the name {unknown[0]!r}. Take those of the "
                "detector's own data, or none."
            )
        return {number: self.known[name] for number, name in names.items()}

    def _results(self, place, row, names, categories, listed):
        """Of one image, whose picture is drawn on the way."""
        from slotcon_tf.detection.inference import Found
        from slotcon_tf.detection.results import image_results

        count = int(row["number"])
        masks = row["masks"][:count] if "masks" in row else None
        boxes, scores, classes = (row[name][:count] for name in NEEDED[:3])
        found = Found(boxes, scores, classes, masks)
        height, width = (int(edge) for edge in row["size"])
        about = {"height": height, "width": width}
        name = self.images.names[place]
        listed.append({"id": self.image_ids[place], "file_name": name, **about})
        if self.pictures is not None:
            self._draw(place, found, names)
        about = types.SimpleNamespace(image_id=self.image_ids[place], **about)
        return image_results(found, about, categories)  # pyright: ignore[reportArgumentType]

    def _draw(self, place, found, names):
        from slotcon_tf.detection.pictures import draw_found
        from slotcon_tf.visualize.detections import write_png

        assert self.pictures is not None
        pixels = decode_image(pathlib.Path(self.images.paths[place]).read_bytes())
        titles = [names.get(c, str(c)) for c in range(max(names, default=-1) + 1)]
        drawn = draw_found(pixels, found, titles, min_score=self.min_score)
        write_png(self.pictures / f"{self.images.names[place]}.png", drawn)


def _each(batches: Iterable[Rows]) -> Iterator[dict[str, Any]]:
    """The rows of all images; of a batch of failures only they have no outputs."""
    for batch in batches:
        for place in range(len(batch["ok"])):
            yield {name: values[place] for name, values in batch.items()}


def _class_names(batches: Iterable[Rows]) -> dict[int, str]:
    """Of the classes that were found anywhere."""
    found = {}
    for batch in batches:
        if not any(batch["ok"]):
            continue
        missing = [name for name in NEEDED if name not in batch]
        if missing:
            raise ExtractionError(
                f"A detector must answer with {', '.join(NEEDED)}. Received: no "
                f"{missing[0]}. Ask the signature {SIGNATURE} of slotcon-export."
            )
        rows = zip(*(batch[k] for k in ("classes", "names", "number")), strict=True)
        for classes, names, number in rows:
            found |= dict(zip(classes[:number].tolist(), names[:number], strict=True))
    return {number: str(found[number]) for number in sorted(found)}


def _own_ids(names: Sequence[str]) -> list[int]:
    stems = [pathlib.PurePath(name).stem for name in names]
    if all(stem.isascii() and stem.isdecimal() and len(stem) < 16 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))


def _given_ids(
    names: Sequence[str], path: str | os.PathLike
) -> tuple[list[int], dict[str, int]]:
    """Numbers of images by their files' names, and of categories by theirs."""
    try:
        content = read_json(path, "COCO").value
        ids = {str(image["file_name"]): int(image["id"]) for image in content["images"]}
        known = {str(c["name"]): int(c["id"]) for c in content["categories"]}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            "`annotations` must be a file in COCO's layout, with `images` and "
            f"`categories`. Received: {path}, of another ({type(error).__name__})."
        ) from error
    last = [pathlib.PurePosixPath(name).name for name in names]
    plain = {pathlib.PurePosixPath(name).name: number for name, number in ids.items()}
    if len(plain) == len(ids) and len(set(last)) == len(last):
        # Below another folder than the file says, but no two of one name.
        names, ids = last, plain
    missing = [name for name in names if name not in ids]
    if missing:
        raise ExtractionError(
            f"`annotations` must have every image. Received: {path}, without "
            f"{missing[0]}; of {len(names)} images it lacks {len(missing)}."
        )
    return [ids[name] for name in names], known
