"""COCO's average precision of boxes and of masks, as `faster-coco-eval` has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slotcon_tf.detection.results import Result, image_results
from slotcon_tf.evaluation.results import TRAINED, result
from slotcon_tf.extras import needed

if TYPE_CHECKING:
    import faster_coco_eval

    from slotcon_tf.data.objects import ObjectImages
    from slotcon_tf.detection.inference import Detector

KINDS: dict[str, Any] = {"box": "bbox", "mask": "segm"}  # and what COCO calls them
METRICS = ("ap", "ap50", "ap75", "aps", "apm", "apl")  # in COCO's order


class DetectionScores(NamedTuple):
    """Average precision, of what was scored.

    Attributes:
        scores: Dict of `box_ap`, `box_ap50`, `box_ap75`, `box_aps`, `box_apm`,
            `box_apl`, and the same of masks, to shares of 1: the mean over IoU 0.50 to
            0.95, at 0.50, at 0.75, of small, medium and large objects. NaN where there
            is no such object.
        classes: Dict of class name to a dict of `box_ap` and `mask_ap`; NaN of a class
            without objects, which is left out of the means.

    Example:
        >>> DetectionScores({"box_ap": 0.41}, {"cat": {"box_ap": 0.5}}).scores["box_ap"]
        0.41
    """

    scores: dict[str, float]
    classes: dict[str, dict[str, float]]

    def result(self, dataset: str, split: str, **about: Any) -> dict[str, Any]:
        """In the schema of `slotcon_tf.evaluation.results`.

        Args:
            dataset, split: What was scored.
            **about: `settings` and `step` of `slotcon_tf.evaluation.results.result`.
        """
        rows = {name: {TRAINED: [v, None, None]} for name, v in self.scores.items()}
        return result("detection", rows, self.classes, dataset, split, **about)


def check_scoring() -> None:
    """Says that scores need faster-coco-eval: before the work, not after.

    Raises:
        MissingExtra: If it is not installed.

    Example:
        >>> check_scoring()
    """
    with needed("evaluation"):
        import faster_coco_eval as _  # noqa: F401


def coco_scores(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    masks: bool,
    category_ids: Sequence[int] | None = None,
) -> DetectionScores:
    """Scores of COCO's results against COCO's ground truth, as its protocol has them.

    At most 100 detections of an image count; crowds are neither hit nor missed, nor
    are, by masks, objects that have none. The size of a mask, not that of its box, says
    whether it is small.

    Args:
        truth: Of an `instances_*.json`: images, annotations, categories.
        results: Of `coco_results`, or of the JSON that others wrote.
        masks: Whether masks are scored, too.
        category_ids: Of the classes that are named, in their order; None: all, by id.

    Raises:
        MissingExtra: If faster-coco-eval is not installed.
        ValueError: If results are of images that are not there, or either side lacks
            masks that are to be scored.

    Example:
        >>> box = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 60]}
        >>> truth = {
        ...     "images": [{"id": 7, "height": 80, "width": 80}],
        ...     "categories": [{"id": 3, "name": "cat"}],
        ...     "annotations": [{**box, "id": 1, "area": 3000, "iscrowd": 0}],
        ... }
        >>> found = coco_scores(truth, [{**box, "score": 0.9}], masks=False)
        >>> found.scores["box_ap"], found.scores["box_aps"]
        (1.0, nan)

    Reference: Lin et al. 2014 (arXiv 1405.0312); pycocotools' COCOeval.
    """
    _check(truth, results, masks)
    names = {one["id"]: one["name"] for one in truth["categories"]}
    classes = {names[i]: {} for i in category_ids or sorted(names)}
    scores = {}
    for kind in KINDS if masks else ("box",):
        evaluation = evaluate_results(truth, results, kind)
        for metric, value in zip(METRICS, evaluation.stats, strict=False):
            scores[f"{kind}_{metric}"] = _there(value)
        # IoU, recall, category, area, most detections: of all areas, and 100.
        precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
        for place, number in enumerate(evaluation.params.catIds):
            if (found := classes.get(names[number])) is not None:
                values = precision[:, :, place]
                values = values[values > -1]
                value = float(values.mean()) if values.size else math.nan
                found[f"{kind}_ap"] = value
    return DetectionScores(scores, classes)


def evaluate_results(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str
) -> faster_coco_eval.COCOeval_faster:
    """The library's evaluation of boxes or masks, for whom wants more than scores.

    Args:
        truth, results: As of `coco_scores`; they stay as they are.
        kind: "box" or "mask".

    Returns:
        A COCOeval that has been run; `stats` and `eval` are pycocotools'.

    Example:
        >>> truth = {"images": [{"id": 7}], "annotations": []}
        >>> truth["categories"] = [{"id": 3, "name": "cat"}]
        >>> evaluate_results(truth, [], "box").eval["precision"].shape
        (10, 101, 1, 4, 3)
    """
    with needed("evaluation"):
        from faster_coco_eval import COCO, COCOeval_faster

    # Copies: the library notes things in what it is given. To it an id of 0 is none.
    objects = [{**one, "id": i} for i, one in enumerate(truth["annotations"], 1)]
    if kind == "mask":
        objects = [_scored_by_mask(one) for one in objects]
    whole = {**truth, "annotations": objects}
    # Its size comes from the box where there is one.
    left_out = "bbox" if kind == "mask" else "segmentation"
    own = [{k: v for k, v in one.items() if k != left_out} for one in results]
    known = COCO(whole, print_function=_quiet)
    evaluation = COCOeval_faster(
        known, known.loadRes(own), KINDS[kind], print_function=_quiet
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _scored_by_mask(one):
    """An object whose mask is not known is neither hit nor missed, as a crowd is.

    Polygons of four numbers are boxes to pycocotools, not so to the library.
    """
    outline = one.get("segmentation")
    if not outline:
        return {**one, "segmentation": [_corners(*one["bbox"])], "iscrowd": 1}
    if isinstance(outline, list) and len(outline[0]) == 4:
        return {**one, "segmentation": [_corners(*box) for box in outline]}
    return one


def _corners(x, y, width, height):
    right, below = x + width, y + height
    return [x, y, right, y, right, below, x, below]


def _quiet(*_: object) -> None:
    """What is told of progress goes nowhere."""


def _there(value: float) -> float:
    return float(value) if value > -1 else math.nan  # -1: there is no such object


def _check(truth, results, masks):
    known = {image["id"] for image in truth["images"]}
    other = next((r["image_id"] for r in results if r["image_id"] not in known), None)
    if other is not None:
        raise ValueError(
            "Results must be of the images of the ground truth. Received: image_id="
            f"{other}, not one of its {len(known)}. Take the results of this set."
        )
    if masks and any("segmentation" not in one for one in results):
        raise ValueError(
            "Masks are scored of results with a `segmentation`. Received: results of "
            "boxes only. Score them with masks=False."
        )
    objects = truth["annotations"]
    if masks and objects and not any(one.get("segmentation") for one in objects):
        raise ValueError(
            "Masks are scored against annotations with a `segmentation`. Received: "
            "annotations without. Score boxes alone, with masks=False."
        )


def detection_scores(
    images: ObjectImages, results: Sequence[Mapping[str, Any]], *, masks: bool
) -> DetectionScores:
    """Scores of COCO's results on a set of images.

    Args:
        images: `ObjectImages`.
        results: Of `coco_results`.
        masks: Whether masks are scored, too.

    Raises:
        MissingExtra, ValueError: As `coco_scores`.

    Example:
        >>> import types
        >>> truth = {"images": [{"id": 7}], "annotations": []}
        >>> truth["categories"] = [{"id": 3, "name": "cat"}]
        >>> images = types.SimpleNamespace(coco=lambda: truth, category_ids=(3,))
        >>> detection_scores(images, [], masks=False).classes
        {'cat': {'box_ap': nan}}
    """
    own = {"masks": masks, "category_ids": images.category_ids}
    return coco_scores(images.coco(), results, **own)


def evaluate_detector(
    detector: Detector,
    images: ObjectImages,
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[list[Result], DetectionScores]:
    """Results and scores of a detector on a set of images, one image at a time.

    Args:
        detector: `Detector`, or a function of an image that returns a `Found`.
        images: `ObjectImages`; its masks are scored where it and the detector have any.
        progress: Function of an iterable that shows how far it is.

    Returns:
        Tuple of the results, as of `coco_results`, and `DetectionScores`.

    Raises:
        MissingExtra: If faster-coco-eval is not installed; before the work.

    Example:
        >>> import types
        >>> from slotcon_tf.detection import Found
        >>> about = types.SimpleNamespace(image_id=7, height=80, width=80)
        >>> box = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 60]}
        >>> truth = {
        ...     "images": [{"id": 7, "height": 80, "width": 80}],
        ...     "categories": [{"id": 3, "name": "cat"}],
        ...     "annotations": [{**box, "id": 1, "area": 3000, "iscrowd": 0}],
        ... }
        >>> images = types.SimpleNamespace(
        ...     num_images=1, has_masks=False, category_ids=(3,),
        ...     load=lambda _: (None, about), coco=lambda: truth,
        ... )
        >>> corners = np.array([[0.0, 0, 50, 60]])
        >>> found = Found(corners, np.array([0.9]), np.array([0]), None)
        >>> results, scores = evaluate_detector(lambda _: found, images)
        >>> scores.classes
        {'cat': {'box_ap': 1.0}}
    """
    check_scoring()
    results: list[Result] = []
    masks = images.has_masks and getattr(detector, "has_masks", True)
    for number in progress(range(images.num_images)):
        image, annotation = images.load(number)
        found = detector(image)
        masks &= found.masks is not None
        results += image_results(found, annotation, images.category_ids)
    return results, detection_scores(images, results, masks=masks)
