"""What the local server promises of TF Serving's protocol, on a tiny model."""

import concurrent.futures
import contextlib
import shutil
import signal
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from export import server as command
from export.server_versions import InvalidRequest, NotServed, Versions
from tests.support.command import free_ports, module, until
from tests.support.serving_case import (
    PATIENCE,
    model_server,  # noqa: F401  a fixture
    noise,
    serving,
    write_tiny_model,
)

KINDS = {"x": np.array([1, -2], np.float16), "y": np.array([3, 4, 5])}
CASES = [
    ("", {"image": noise(3, edge=32)}),
    ("", {"image": noise(0, edge=32)}),
    ("text", {"text": np.array([b"aGk", b""], object)}),
    ("kinds", KINDS),
]


@pytest.mark.parametrize(("signature", "inputs"), CASES)
def test_answers_equal_the_saved_models(model_server, signature, inputs):  # noqa: F811
    loaded = tf.saved_model.load(str(model_server.folder / "1"))
    function = loaded.signatures[signature or "serving_default"]
    truth = function(**{name: tf.constant(value) for name, value in inputs.items()})
    found, spec = model_server.predict(signature=signature, **inputs)
    assert set(found) == set(truth)
    for name, expected in truth.items():
        np.testing.assert_array_equal(found[name], expected.numpy(), strict=True)
    assert spec.name == "slotcon" and spec.version.value == 1
    assert spec.signature_name == (signature or "serving_default")
    for name in truth:
        filtered, _ = model_server.predict(
            signature=signature, output_filter=[name], **inputs
        )
        assert set(filtered) == {name}


def test_requests_are_not_mixed_up(model_server):  # noqa: F811
    def ask(index):
        text = np.array([b"a" * 4 * (index % 7)] * (1 + index % 3), object)
        found = model_server.predict(signature="text", text=text)[0]["length"]
        return found.tolist() == [4 * (index % 7)] * (1 + index % 3)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(200)))


IMAGE = noise(1, edge=16)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"model": "", "image": IMAGE}, "INVALID_ARGUMENT"),
        ({"model": "other", "image": IMAGE}, "NOT_FOUND"),
        ({"version": 2, "image": IMAGE}, "NOT_FOUND"),
        ({"label": "stable", "image": IMAGE}, "INVALID_ARGUMENT"),
        ({"signature": "other", "image": IMAGE}, "INVALID_ARGUMENT"),
        ({"signature": "kinds", "x": KINDS["x"]}, "INVALID_ARGUMENT"),
        ({"signature": "kinds", **KINDS, "z": KINDS["x"]}, "INVALID_ARGUMENT"),
        ({"image": IMAGE.astype(np.float32)}, "INVALID_ARGUMENT"),
        ({"image": IMAGE[0]}, "INVALID_ARGUMENT"),
        ({"image": IMAGE[..., :2]}, "INVALID_ARGUMENT"),
        ({"image": IMAGE, "output_filter": ["other"]}, "INVALID_ARGUMENT"),
        ({"image": IMAGE, "output_filter": ["map", "map"]}, "INVALID_ARGUMENT"),
        # What the model itself refuses.
        ({"signature": "text", "text": np.array([b"!"], object)}, "INVALID_ARGUMENT"),
    ],
)
def test_refusals(model_server, arguments, code):  # noqa: F811
    with refused(code) as caught:
        model_server.predict(**arguments)
    text = caught.value.details()
    assert text and "Traceback" not in text and 'File "' not in text


@contextlib.contextmanager
def refused(code):
    with pytest.raises(grpc.RpcError) as caught:
        yield caught
    assert caught.value.code() == grpc.StatusCode[code], caught.value.details()


def malformed(dtype=tf.uint8.as_datatype_enum, shape=(1, 9, 9, 3), content=b""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "slotcon"
    proto = request.inputs["image"]
    proto.dtype = dtype
    proto.tensor_content = content
    proto.tensor_shape.unknown_rank = shape is None
    for size in shape or ():
        proto.tensor_shape.dim.add(size=size)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (predict_pb2.PredictRequest(), "must have a name"),
        (malformed(content=b"abc"), "no whole tensor"),
        (malformed(shape=None), "of shape unknown"),
        (malformed(shape=(-1, 9, 9, 3)), "of shape unknown"),
        (malformed(dtype=0), "Received: dtype 0"),
        (malformed(dtype=999), "Received: dtype 999"),
        # Some bytes that ask for 3 TB.
        (malformed(shape=(2**20, 2**10, 2**10, 3)), "at most 67108864 bytes"),
    ],
)
def test_malformed_requests(model_server, request_, message):  # noqa: F811
    if not model_server.local:
        pytest.skip("texts are the local server's")
    with refused("INVALID_ARGUMENT") as caught:
        model_server.predictions.Predict(request_, timeout=PATIENCE)
    assert message in caught.value.details()


def test_metadata_is_the_saved_models(model_server):  # noqa: F811
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "slotcon"
    for fields in ([], ["other"], ["signature_def", "other"]):
        request.metadata_field[:] = fields
        with refused("INVALID_ARGUMENT"):
            model_server.predictions.GetModelMetadata(request)
    request.metadata_field[:] = ["signature_def"]
    response = model_server.predictions.GetModelMetadata(request)
    assert response.model_spec.name == "slotcon"
    assert response.model_spec.version.value == 1
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    saved = saved_model_pb2.SavedModel.FromString(
        (model_server.folder / "1" / "saved_model.pb").read_bytes()
    )
    truth = saved.meta_graphs[0].signature_def
    for name in ("serving_default", "text", "kinds"):
        assert found.signature_def[name] == truth[name]
    request.model_spec.name = "other"
    with refused("NOT_FOUND"):
        model_server.predictions.GetModelMetadata(request)


def test_status_and_what_is_not_implemented(model_server):  # noqa: F811
    request = get_model_status_pb2.GetModelStatusRequest()
    with refused("INVALID_ARGUMENT"):
        model_server.models.GetModelStatus(request)
    request.model_spec.name = "slotcon"
    (status,) = model_server.models.GetModelStatus(request).model_version_status
    assert status.version == 1 and status.status.error_code == 0
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    request.model_spec.version.value = 7
    with refused("NOT_FOUND") as caught:
        model_server.models.GetModelStatus(request)
    assert "version 7 of model slotcon" in caught.value.details()
    if model_server.local:
        predictions = model_server.predictions
        for call, empty in [
            (predictions.Regress, regression_pb2.RegressionRequest()),
            (predictions.MultiInference, inference_pb2.MultiInferenceRequest()),
            (
                model_server.models.HandleReloadConfigRequest,
                model_management_pb2.ReloadConfigRequest(),
            ),
        ]:
            with refused("UNIMPLEMENTED"):
                call(empty)


@pytest.mark.slow
def test_an_empty_folder_then_versions(tmp_path):
    """It says so, waits, ignores odd names, reports the damaged, ends with Ctrl-C."""
    folder = tmp_path / "slotcon"
    folder.mkdir()
    write_tiny_model(tmp_path / "good")
    with serving(folder) as server:
        assert "No version in" in server.log()
        with refused("NOT_FOUND"):
            server.predict(image=IMAGE)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "slotcon"
        with refused("NOT_FOUND"):
            server.models.GetModelStatus(request)
        for name in (".writing-2", "²", "v3", "99999999999999999999"):
            shutil.copytree(tmp_path / "good", folder / name)
        damaged = folder / "3"
        damaged.mkdir()
        (damaged / "saved_model.pb").write_bytes(b"damaged")
        shutil.copytree(tmp_path / "good", tmp_path / "1")
        (tmp_path / "1").rename(folder / "1")
        state = get_model_status_pb2.ModelVersionStatus
        statuses, found = [], {}

        def available():
            with contextlib.suppress(grpc.RpcError):
                answer = server.models.GetModelStatus(request)
                statuses[:] = answer.model_version_status
                found.update({status.version: status.state for status in statuses})
            return found.get(1) == state.AVAILABLE

        until(available, "version 1", server.process)
        assert found == {1: state.AVAILABLE, 3: state.END}
        assert "Version 3 of slotcon is damaged" in server.log()
        assert server.predict(image=IMAGE)[1].version.value == 1
        assert statuses[0].status.error_code and statuses[0].status.error_message
        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Function: numbers -> folder of as many copies of the tiny model."""
    base = tmp_path_factory.mktemp("versions")
    write_tiny_model(base / "good")

    def copies(folder, *numbers):
        for number in numbers:
            shutil.copytree(base / "good", folder / str(number))
        return folder

    return copies


def spec(**fields):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = fields.pop("name", "slotcon")
    if "version" in fields:
        request.model_spec.version.value = fields["version"]
    if "label" in fields:
        request.model_spec.version_label = fields["label"]
    return request.model_spec


def test_which_versions_are_kept(versions, tmp_path):
    folder = versions(tmp_path, 1, 2, 3, 10)
    for keep, labels, kept in [
        (1, {}, [10]),
        (2, {}, [3, 10]),
        (9, {}, [1, 2, 3, 10]),
        (1, {"stable": 1, "later": 11}, [1, 10]),
    ]:
        found = Versions(folder, "slotcon", labels, keep)
        found.poll()
        assert found.numbers() == kept
    assert found.get(spec()).number == 10
    assert found.get(spec(label="stable")).number == 1
    for wrong, error, message in [
        ({"version": 2}, NotServed, "Specific.slotcon, 2"),
        ({"version": 0}, NotServed, "Specific.slotcon, 0"),
        ({"label": "later"}, NotServed, "Specific.slotcon, 11"),
        ({"label": "none"}, InvalidRequest, "Unrecognized .*: none.*later.*stable"),
        ({"name": "other"}, NotServed, "Latest.other"),
        ({"name": ""}, InvalidRequest, "must have a name"),
    ]:
        with pytest.raises(error, match=message):
            found.get(spec(**wrong))


def test_a_version_read_too_early_is_tried_again(versions, tmp_path, monkeypatch):
    folder = versions(tmp_path, 1, 2)
    weights = next((folder / "2" / "variables").glob("*.data*"))
    whole = weights.read_bytes()
    weights.unlink()
    found = Versions(folder, "slotcon")
    found.poll()
    assert found.numbers() == [1] and found.states()[2][1]
    # Not at every look.
    with monkeypatch.context() as patched:
        patched.setattr("export.server_versions.Version", pytest.fail)
        found.poll()
    weights.write_bytes(whole)
    found.poll()
    assert found.numbers() == [2] and not found.states()[2][1]


def test_a_folder_that_goes_away_leaves_what_is_loaded(versions, tmp_path):
    folder = versions(tmp_path / "there", 1)
    found = Versions(folder, "slotcon")
    found.poll()
    folder.rename(tmp_path / "away")
    found.poll()
    assert found.numbers() == [1]
    (tmp_path / "away").rename(folder)
    shutil.rmtree(folder / "1")
    found.poll()
    assert found.numbers() == []


@pytest.mark.slow
def test_command_lines_that_cannot_be(versions, tmp_path, capsys):
    folder = versions(tmp_path, 1)
    with serving(folder) as server:
        line = [f"--export_dir={folder}", f"--port={server.port}"]
        taken = module("export.server", *line, check=False)
        assert taken.returncode == 1 and "Traceback" not in taken.stderr
        assert str(server.port) in taken.stderr and not taken.stdout
        # The end can be asked for as soon as the line is there.
        server.kill()
        server.port = free_ports(1)[0]
        server.start()
        assert server.stop() == 0
    with pytest.raises(SystemExit) as end:
        command.main(["server", f"--export_dir={folder}", "--version_labels=stable"])
    assert end.value.code == 2 and "stable:1,canary:2" in capsys.readouterr().err


@pytest.mark.slow
def test_rest_beside_grpc(versions, tmp_path):
    (port,) = free_ports(1)
    folder = versions(tmp_path, 1)
    with serving(folder, f"--rest_port={port}") as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/slotcon") as it:
            assert b'"version": "1"' in it.read()
        assert server.stop() == 0
