"""The files for TF Serving are what TF Serving parses, and fit the export."""

import pathlib

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import export
from slotcon_tf.serving.warmup import BATCH_SIZES

FOLDER = pathlib.Path(export.__file__).parent / "serving"


def test_models():
    text = (FOLDER / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == "slotcon" and model.model_platform == "tensorflow"
    versions = model.model_version_policy.specific.versions
    assert set(model.version_labels.values()) <= set(versions)


def test_allowed_batches_are_those_warmed_up():
    """The parameters' message is not in tensorflow-serving-api: read as text."""
    lines = (FOLDER / "batching.config").read_text().splitlines()
    allowed = [x.split()[1] for x in lines if x.startswith("allowed_batch_sizes")]
    assert allowed == [str(size) for size in BATCH_SIZES]
    assert f"max_batch_size {{ value: {allowed[-1]} }}" in lines


def test_compose_names_files_that_are_there():
    yaml = pytest.importorskip("yaml", reason="parses the compose file")
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    command = service["slotcon"]["command"]
    named = [x.split("/config/")[1] for x in command if "/config/" in x]
    assert sorted(named) == sorted(p.name for p in FOLDER.glob("*.config"))
    assert {"--port=8500", "--rest_api_port=8501"} <= set(command)
