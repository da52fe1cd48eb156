"""COCO's results: detections as everybody's tools score them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slotcon_tf.detection.paste import pasted_within
from slotcon_tf.extras import needed
from slotcon_tf.files import write_text

if TYPE_CHECKING:
    from slotcon_tf.data.objects import Annotation, ObjectImages
    from slotcon_tf.detection.inference import Found

Result = dict[str, Any]


def encode_masks(
    probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int
) -> list[dict[str, Any]]:
    """Masks of an image's size as COCO's compressed run lengths.

    They are those of `paste_masks`, but no array of the image's size is made.

    Args:
        probabilities: (D, m, m) in [0, 1].
        boxes: (D, 4), in the image's pixels.
        height, width: Of the image.

    Returns:
        A list of D dicts of "size", [height, width], and "counts", a str.

    Raises:
        MissingExtra: If faster-coco-eval is not installed.

    Example:
        >>> encode_masks(np.ones((1, 2, 2)), np.array([[1, 0, 3, 2]]), 2, 4)
        [{'size': [2, 4], 'counts': '242'}]
    """
    with needed("evaluation"):
        from faster_coco_eval.core import mask as runs
    found = []
    for one, box in zip(probabilities, boxes, strict=True):
        rows, columns, mask = pasted_within(one, box, height, width)
        strip = np.zeros((mask.shape[1], height), bool)  # whole columns, as COCO counts
        strip[:, rows] = mask.T
        counts = _run_lengths(strip.ravel(), columns.start * height, height * width)
        whole = {"size": [height, width], "counts": counts}
        compressed: Any = runs.frPyObjects(whole, height, width)
        counts = compressed["counts"]
        text = counts.decode() if isinstance(counts, bytes) else counts
        found.append({**whole, "counts": text})
    return found


def _run_lengths(part: np.ndarray, before: int, total: int) -> list[int]:
    """Lengths of runs of zeros and ones in turn, of a part and zeros around it."""
    changes = np.flatnonzero(np.diff(part, prepend=False, append=False)) + before
    lengths = np.diff(changes, prepend=0, append=total).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def image_results(
    found: Found, annotation: Annotation, category_ids: Sequence[int]
) -> list[Result]:
    """What was found in one image, as COCO's results.

    Args:
        found: In the image's pixels.
        annotation: Of the image; its number and size count only.
        category_ids: Of the classes, in their order.

    Returns:
        A list of dicts of `image_id`, `category_id`, `bbox` (x, y, width, height),
        `score` and, of a detector with masks, `segmentation`; JSON takes all of it.

    Example:
        >>> import types
        >>> from slotcon_tf.detection import Found
        >>> box = np.array([[1.0, 0.0, 3.0, 2.0]])
        >>> found = Found(box, np.array([0.5]), np.array([1]), None)
        >>> about = types.SimpleNamespace(image_id=7, height=2, width=4)
        >>> image_results(found, about, (3, 18))
        [{'image_id': 7, 'category_id': 18, 'bbox': [1.0, 0.0, 2.0, 2.0], 'score': 0.5}]
    """
    boxes = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:]], axis=1)
    boxes[:, 2:] -= boxes[:, :2]
    results: list[Result] = [
        {
            "image_id": int(annotation.image_id),
            "category_id": int(category_ids[number]),
            "bbox": [float(value) for value in box],
            "score": float(score),
        }
        for box, score, number in zip(boxes, found.scores, found.classes, strict=True)
    ]
    if found.masks is not None:
        size = annotation.height, annotation.width
        masks = encode_masks(found.masks, found.boxes, *size)
        for one, mask in zip(results, masks, strict=True):
            one["segmentation"] = mask
    return results


def coco_results(images: ObjectImages, founds: Iterable[Found]) -> list[Result]:
    """What was found in a set of images, as COCO's results.

    Args:
        images: `ObjectImages`.
        founds: `Found` of each image, in their order; an iterator keeps one at a time
            in memory.

    Returns:
        As `image_results`.

    Example:
        >>> import types
        >>> from slotcon_tf.detection import Found
        >>> found = Found(np.ones((1, 4)), np.array([0.5]), np.array([0]), None)
        >>> about = types.SimpleNamespace(image_id=7, height=2, width=4)
        >>> images = types.SimpleNamespace(
        ...     category_ids=(3,), annotation=lambda number: about
        ... )
        >>> [one["image_id"] for one in coco_results(images, [found])]
        [7]
    """
    return [
        result
        for number, found in enumerate(founds)
        for result in image_results(
            found, images.annotation(number), images.category_ids
        )
    ]


def write_results(path: str | pathlib.Path, results: Sequence[Mapping]) -> None:
    """Writes COCO's results as JSON, one to a line, whole or not at all.

    Args:
        path: File; its folder is made.
        results: Of `coco_results`.

    Example:
        >>> write_results("results.json", [{"image_id": 7, "score": 0.5}])
        >>> json.loads(pathlib.Path("results.json").read_text())
        [{'image_id': 7, 'score': 0.5}]
    """
    lines = ",\n".join(json.dumps(one, allow_nan=False) for one in results)
    write_text(path, f"[{lines}]\n")
