"""A run, an export of it and an export of its preset serve the same."""

import sys

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from slotcon_tf import BACKBONES, SlotCon
from slotcon_tf.runs import pretrain
from slotcon_tf.runs.exporting import ExportConfig, export
from slotcon_tf.runs.loading import load_trained, serving_options
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.warmup import BATCH_SIZES, WARMUP_FILE, write_warmup
from tests.support.command import TINY_RUN

prediction_log_pb2 = pytest.importorskip(
    "tensorflow_serving.apis.prediction_log_pb2", reason="reads the warm-up"
)
SIZE = 48


def served(version):
    """Shapes of answers to files, and (signature, shape) of the warm-up requests."""
    model = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    signatures = model.meta_graphs[0].signature_def
    masks, maps = (
        tuple(d.size for d in signatures[name].outputs[answer].tensor_shape.dim)
        for name, answer in (("groups", "assignments"), ("image_bytes", "map"))
    )
    warm = []
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        ((_, tensor),) = request.inputs.items()
        shape = tuple(d.size for d in tensor.tensor_shape.dim)
        warm.append((request.model_spec.signature_name, shape))
    return masks, maps, warm


@pytest.mark.slow
def test_three_ways_to_an_export_are_one(tmp_path, monkeypatch):
    tiny = {"width": 4, "stage_depths": (1, 1, 1, 1)}
    monkeypatch.setitem(BACKBONES, "tiny", {**BACKBONES["resnet18"], **tiny})
    run = pretrain(
        TINY_RUN.replace(
            arch="tiny",
            epochs=1,
            max_steps_per_epoch=1,
            serving_size=SIZE,
            workdir=str(tmp_path / "run"),
        )
    )
    assert run.model.serving_size == SIZE and int(run.model.step.numpy()) == 1
    SlotCon.from_preset(run.workdir).save_to_preset(tmp_path / "preset")
    versions = [run.workdir / "export" / "1"]
    for source in (run.workdir, tmp_path / "preset"):
        folder = tmp_path / f"served_{source.name}"
        versions.append(export(ExportConfig(model=source, export_dir=folder)))
    first, *others = map(served, versions)
    masks, maps, warm = first
    assert masks == (-1, SIZE, SIZE) and maps == (-1, 2, 2, 32)
    assert {shape[0] for _, shape in warm} == set(BATCH_SIZES)
    assert ("serving_default", (1, SIZE, SIZE, 3)) in warm
    assert ("image_bytes", (8,)) in warm
    assert all(other == first for other in others)
    # A checkpoint alone, and somebody who says otherwise.
    model, _ = load_trained(run.checkpoints.latest())
    assert serving_options(model) == serving_options(run.model)
    other = serving_options(model, mask_size=20, batch_sizes=(2,))
    assert other["options"] == ServingOptions(image_size=SIZE, mask_size=20)
    assert other["warmup_batches"] == (2,)


def test_without_the_serving_package_it_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    assert not write_warmup(tmp_path, "slotcon", {}, (1,), 32)
    assert "slotcon_tf[serving]" in caplog.text and not list(tmp_path.iterdir())
