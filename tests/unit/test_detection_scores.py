"""COCO's scores and results: the recorded numbers, and what has no objects."""

import copy
import json
import logging
import math
import tracemalloc
import types

import numpy as np
import pytest

from slotcon_tf.detection import (
    Found,
    coco_results,
    coco_scores,
    encode_masks,
    evaluate_detector,
    paste_masks,
    write_results,
)
from slotcon_tf.detection.scoring import KINDS, METRICS, evaluate_results
from tests.support.detection_case import described, recorded

STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
CLOSE = {"rtol": 0, "atol": 1e-12}


def truth():
    return copy.deepcopy(described("coco_gt"))


def detections():
    return copy.deepcopy(described("coco_dt"))


@pytest.fixture(scope="module")
def scored():
    return coco_scores(truth(), detections(), masks=True)


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_scores(scored, kind):
    want = described("coco_result")[KINDS[kind]]
    found = [scored.scores[f"{kind}_{metric}"] for metric in METRICS]
    np.testing.assert_allclose(found, [want["stats"][x] for x in STATS], **CLOSE)
    assert list(scored.classes) == list(want["per_class_AP"])
    for name, value in want["per_class_AP"].items():
        value = math.nan if value is None else value
        np.testing.assert_allclose(scored.classes[name][f"{kind}_ap"], value, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_precision_and_recall(kind):
    found = evaluate_results(truth(), detections(), kind)
    for name in ("precision", "recall", "scores"):
        want = recorded("coco_eval")[f"{KINDS[kind]}/{name}"]
        np.testing.assert_allclose(found.eval[name], want, **CLOSE)


def test_it_is_quiet_and_changes_nothing(capsys, caplog):
    known, results = truth(), detections()
    first = coco_scores(known, results, masks=True)
    assert known == truth() and results == detections()
    assert coco_scores(known, results, masks=True).scores == first.scores
    assert capsys.readouterr() == ("", "")
    assert not [one for one in caplog.records if one.levelno > logging.DEBUG]


def test_the_faults_that_the_record_knows(scored):
    """How much each is worth stands in the recorded numbers' README."""
    known = truth()
    assert any(one["iscrowd"] for one in known["annotations"])
    known["annotations"] = [a for a in known["annotations"] if not a["iscrowd"]]
    found = coco_scores(known, detections(), masks=False)
    assert found.scores["box_ap"] - scored.scores["box_ap"] == pytest.approx(
        -0.008, abs=1e-3
    )


def test_annotations_may_count_from_0(scored):
    known = truth()
    for number, one in enumerate(known["annotations"]):
        one["id"] = number
    found = coco_scores(known, detections(), masks=True)
    assert found.scores == scored.scores


def test_no_detections_are_0_and_no_objects_are_nan():
    found = coco_scores(truth(), [], masks=True)
    assert set(found.scores.values()) == {0.0}
    assert math.isnan(found.classes["toothbrush"]["mask_ap"])
    assert found.classes["dog"] == {"box_ap": 0.0, "mask_ap": 0.0}
    nothing = {**truth(), "annotations": []}
    found = coco_scores(nothing, detections(), masks=True)
    assert all(map(math.isnan, found.scores.values()))


def test_classes_in_their_own_order():
    found = coco_scores(truth(), [], masks=False, category_ids=(18, 3))
    assert list(found.classes) == ["dog", "car"]


def test_results_of_other_images_and_without_masks_are_refused():
    other = [{**detections()[0], "image_id": 12345}]
    with pytest.raises(ValueError, match="image_id=12345, not one of its 50"):
        coco_scores(truth(), other, masks=False)
    boxes = [{k: v for k, v in detections()[0].items() if k != "segmentation"}]
    with pytest.raises(ValueError, match="Received: results of boxes only"):
        coco_scores(truth(), boxes, masks=True)
    assert coco_scores(truth(), boxes, masks=False).scores["box_ap"] >= 0
    known = truth()
    for one in known["annotations"]:
        del one["segmentation"]
    with pytest.raises(ValueError, match="Received: annotations without"):
        coco_scores(known, detections(), masks=True)


def test_what_has_no_mask_is_neither_hit_nor_missed_by_masks():
    def row(x, **more):
        one = {"image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10], **more}
        return {**one, "area": 100, "iscrowd": 0}

    def square(x):
        return [[x, 0, x + 10, 0, x + 10, 10, x, 10]]

    known = {
        "images": [{"id": 1, "height": 20, "width": 80}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [row(0, segmentation=square(0)), row(40)],
    }
    boxes = np.array([[40, 0, 50, 10], [0, 0, 10, 10]])
    right, left = encode_masks(np.ones((2, 28, 28)), boxes, 20, 80)
    results = [
        row(40, segmentation=right, score=0.9),
        row(0, segmentation=left, score=0.8),
    ]
    found = coco_scores(known, results, masks=True).scores
    assert found["mask_ap"] == found["box_ap"] == 1.0
    assert coco_scores(known, results[1:], masks=True).scores["mask_ap"] == 1.0
    # Four numbers are a box to pycocotools.
    known["annotations"][1]["segmentation"] = [[40, 0, 10, 10]]
    assert coco_scores(known, results, masks=True).scores["mask_ap"] == 1.0
    half = coco_scores(known, results[1:], masks=True).scores["mask_ap"]
    assert half == pytest.approx(51 / 101)
    known["annotations"][1]["segmentation"] = [[*square(40)[0], 7]]
    assert coco_scores(known, results, masks=True).scores["mask_ap"] == 1.0


def test_recorded_records_of_pasted_masks(tmp_path):
    """Boxes in the image's pixels, clipped; masks as run lengths, to the letter."""
    case, pixels = described("masks")["post"], recorded("masks")
    height, width = case["output_hw"]
    scale = np.array([width, height] * 2) / np.array(case["input_hw"][::-1] * 2)
    boxes = np.clip(pixels["paste/boxes"] * scale, 0, [width, height, width, height])
    scores, classes = np.array(case["scores"]), np.array(case["classes"])
    found = Found(boxes, scores, classes, pixels["paste/probs"])
    about = types.SimpleNamespace(image_id=7, height=height, width=width)
    images = types.SimpleNamespace(
        category_ids=tuple(range(10)), annotation=lambda number: about
    )
    results = coco_results(images, [found])
    for one, want in zip(results, case["records"], strict=True):
        np.testing.assert_allclose(one["bbox"], want["bbox"], rtol=0, atol=1e-10)
        assert {**one, "bbox": 0} == {**want, "bbox": 0}
    write_results(tmp_path / "deep" / "results.json", results)
    assert json.loads((tmp_path / "deep" / "results.json").read_text()) == results


def test_run_lengths_are_those_of_whole_masks():
    from faster_coco_eval.core import mask as runs

    rng = np.random.default_rng(0)
    corners = rng.uniform(-5, 45, (20, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes[0] = boxes[1, [0, 1, 0, 1]]  # no area
    masks = rng.uniform(size=(20, 28, 28)).astype(np.float32)
    masks[2:5], boxes[2:5] = 1, [[0, 0, 40, 30], [0, 0, 9, 9], [30, 20, 40, 30]]
    whole = paste_masks(masks, boxes, 30, 40).transpose(1, 2, 0)
    want = runs.encode(np.asfortranarray(whole, np.uint8))
    assert encode_masks(masks, boxes, 30, 40) == [
        {**one, "counts": one["counts"].decode()} for one in want
    ]


def test_masks_of_large_images_take_little_memory():
    boxes = np.random.default_rng(0).uniform(0, 2500, (20, 2)).repeat(2, 0)
    boxes = boxes.reshape(20, 4) + [0, 0, 300, 300]
    tracemalloc.start()
    found = encode_masks(np.ones((20, 28, 28), np.float32), boxes, 3000, 4000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 20 and most < 3000 * 4000


class Images:
    """Two squares of two kinds in one image, and an image with none."""

    num_images, has_masks = 2, True
    class_names, category_ids = ("cat", "dog"), (18, 3)  # not in order
    boxes = np.array([[2.0, 4, 42, 44], [50, 10, 90, 60]])

    def load(self, index):
        return np.full((70, 100, 3), index, np.uint8), self.annotation(index)

    def annotation(self, index):
        return types.SimpleNamespace(image_id=40 + index, height=70, width=100)

    def coco(self):
        objects = [
            {
                "id": number + 1,
                "image_id": 40,
                "category_id": self.category_ids[number],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            }
            for number, (x1, y1, x2, y2) in enumerate(self.boxes.tolist())
        ]
        names = dict(zip(self.category_ids, self.class_names, strict=True))
        return {
            "images": [{"id": i, "height": 70, "width": 100} for i in (40, 41)],
            "categories": [{"id": i, "name": n} for i, n in names.items()],
            "annotations": objects,
        }


@pytest.mark.parametrize("masks", [True, False])
def test_whoever_finds_everything_scores_1(masks):
    full = np.ones((2, 28, 28), np.float32) if masks else None

    def detector(image):
        found = Found(Images.boxes, np.array([0.9, 0.8]), np.array([0, 1]), full)
        return found if image[0, 0, 0] == 0 else found.above(1.0)

    results, found = evaluate_detector(detector, Images())
    assert [one["category_id"] for one in results] == [18, 3]
    assert found.scores["box_ap"] == 1 == found.scores["box_apm"]
    assert math.isnan(found.scores["box_apl"])
    assert ("mask_ap" in found.scores) == masks
    assert list(found.classes) == ["cat", "dog"]
    # The other way round nothing is right.
    _, found = evaluate_detector(lambda _: Found(*_turned(), full), Images())
    assert found.scores["box_ap"] == 0


def _turned():
    return Images.boxes, np.array([0.9, 0.8]), np.array([1, 0])
