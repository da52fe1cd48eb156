"""Settings of a detector beside its weights in detectron2's file."""

import json
import pathlib

import pytest

from slotcon_tf.detection.kept_settings import read_settings, written_settings
from slotcon_tf.interop.pickles import CheckpointFileError
from slotcon_tf.interop.weights import Weights
from tests.support.detector_case import small_detector

KEY = "slotcon_tf_detector"


def kept(text):
    return Weights({"a": None}, {KEY: text}, pathlib.Path("a.pth"))


def test_what_is_written_is_read():
    changes = {"short_edge": 64, "long_edge": 128, "fixed_shapes": True}
    model = small_detector(**changes)
    model.seed = changes["seed"] = -5
    found = read_settings(kept(written_settings(model)[KEY]))
    assert found.items() >= changes.items()
    for name, value in found.items():
        own = getattr(model, name)
        assert (list(own) if isinstance(own, tuple) else own) == value, name


def test_files_of_others_say_nothing():
    assert read_settings(Weights({"a": None}, {}, pathlib.Path("a.pth"))) == {}


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"other": 1},
        {"fixed_shapes": 1},
        {"seed": 2**63},
        {"seed": 1.0},
        {"max_detections": True},
        {"max_detections": 0},
        {"anchors_per_image": [8, 8]},
        {"proposals": 9},
        {"proposals": [9]},
        {"test_proposals": [9, -1]},
        {"short_edge": 64, "long_edge": 32},
    ],
)
def test_damage_ends_in_one_line(value):
    with pytest.raises(CheckpointFileError, match="settings of a detector in JSON"):
        read_settings(kept(json.dumps(value)))


@pytest.mark.parametrize("text", ["{", 3, "[" * 99_999])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(CheckpointFileError, match=r"of a\.pth must be"):
        read_settings(kept(text))
