"""Where a detector's files have its weights: what older versions wrote loads."""

import json
import pathlib
import zipfile

import h5py
import pytest
import tensorflow as tf

from slotcon_tf.runs import DetectionConfig
from slotcon_tf.runs.checkpoints import STATE, Checkpoints
from slotcon_tf.training.optimizers import SGD
from tests.support.detector_case import small_detector

RECORDED = pathlib.Path(__file__).parents[1] / "golden" / "detector_paths.json"


@pytest.fixture(scope="module")
def model():
    model = small_detector(name="detector")
    model.compile(optimizer=SGD(0.1, l2=0.0))
    model.optimizer.build(model.trainable_variables)
    return model


def paths_of(model, folder):
    """Names in its variables, in a file of Keras and in a checkpoint of a run."""
    model.save(folder / "detector.keras")
    with zipfile.ZipFile(folder / "detector.keras") as archive:
        kept = json.loads(archive.read("config.json"))
        archive.extract("model.weights.h5", folder)
    stored = []
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(
            lambda name, item: stored.append(name) if hasattr(item, "dtype") else None
        )
    path = Checkpoints(
        folder / "checkpoints", model, DetectionConfig(), steps_per_epoch=1, keep=1
    ).save()
    return {
        "registered_name": kept["registered_name"],
        "settings": sorted(kept["config"]),
        "variables": [variable.path for variable in model.variables],
        "keras": sorted(stored),
        "checkpoint": sorted(
            name for name, _ in tf.train.list_variables(str(path / STATE))
        ),
    }


def test_weights_are_where_they_were(model, tmp_path):
    """Recorded on 2026-11-28; a name that changes here makes older files unreadable."""
    assert paths_of(model, tmp_path) == json.loads(RECORDED.read_text())
