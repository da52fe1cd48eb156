"""Which versions the local server keeps, labels, warm-up requests, TLS; in-process."""

import json
import shutil
import socket
import ssl
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
)

from export.server_errors import Refused
from export.server_tls import Certificates
from export.server_versions import Versions
from slotcon_tf.serving.warmup import WARMUP_FILE
from tests.support.server_case import both, write_certificates
from tests.support.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Function: numbers -> folder of as many copies of the tiny model."""
    base = tmp_path_factory.mktemp("versions")
    write_tiny_model(base / "good")

    def copied(folder, *numbers):
        for number in numbers:
            shutil.copytree(base / "good", folder / str(number))
        return folder

    return copied


def spec(name="slotcon", version=None, label=None):
    found = model_pb2.ModelSpec(name=name)
    if version is not None:
        found.version.value = version
    if label is not None:
        found.version_label = label
    return found


def test_which_versions_are_kept(copies, tmp_path):
    folder = copies(tmp_path, 1, 2, 3, 10)
    for keep, labels, kept in [
        (2, {}, [3, 10]),
        (9, {}, [1, 2, 3, 10]),
        (1, {"stable": 1, "later": 11}, [1, 10]),
    ]:
        found = Versions(folder, "slotcon", labels, keep)
        found.poll()
        assert found.numbers() == kept
    assert found.get(spec()).number == 10
    assert found.get(spec(label="stable")).number == 1
    for wrong, code, message in [
        ({"version": 2}, "NOT_FOUND", "Specific.slotcon, 2"),
        ({"version": 0}, "NOT_FOUND", "Specific.slotcon, 0"),
        ({"label": "later"}, "NOT_FOUND", "Specific.slotcon, 11"),
        ({"label": "none"}, "INVALID_ARGUMENT", "Unrecognized .*: none"),
        ({"name": "other"}, "NOT_FOUND", "Latest.other"),
        ({"name": ""}, "INVALID_ARGUMENT", "ModelSpec has no name"),
    ]:
        with pytest.raises(Refused, match=message) as caught:
            found.get(spec(**wrong))
        assert caught.value.code == code
    # Rolled back: the label holds what is not among the newest.
    shutil.rmtree(folder / "10")
    found.poll()
    assert found.numbers() == [1, 3]


def test_a_version_read_too_early_is_tried_again(copies, tmp_path, monkeypatch):
    folder = copies(tmp_path, 1, 2)
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


def test_a_folder_that_goes_away_leaves_what_is_loaded(copies, tmp_path):
    folder = copies(tmp_path / "there", 1)
    found = Versions(folder, "slotcon")
    found.poll()
    folder.rename(tmp_path / "away")
    found.poll()
    assert found.numbers() == [1]
    (tmp_path / "away").rename(folder)
    shutil.rmtree(folder / "1")
    found.poll()
    assert found.numbers() == []


def write_requests(version, *logs):
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for log in logs:
            file.write(log.SerializeToString())


def warmup(name, **inputs):
    request = predict_pb2.PredictRequest(output_filter=["length"])
    request.model_spec.signature_name = name
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log


def test_warmup_requests_are_answered_first(copies, tmp_path):
    """A version whose own requests fail is not served, as in TF Serving."""
    folder = copies(tmp_path, 1, 2, 3, 4)
    write_requests(folder / "1", warmup("text", text=np.array([b"aGk"], object)))
    write_requests(folder / "2", warmup("text", text=np.array([1])))
    write_requests(folder / "3", prediction_log_pb2.PredictionLog())
    (folder / "4" / WARMUP_FILE).parent.mkdir()
    (folder / "4" / WARMUP_FILE).write_bytes(b"no records" * 9)
    found = Versions(folder, "slotcon", keep=9)
    found.poll()
    assert found.numbers() == [1]
    assert "must be string" in found.states()[2][1]
    assert "of Predict" in found.states()[3][1]
    found = Versions(folder, "slotcon", keep=9, warmup=False)
    found.poll()
    assert found.numbers() == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.mark.parametrize("mutual", [False, True], ids=["server", "both"])
def test_tls(copies, tmp_path, certificates, mutual):
    """Over both transports; without it nothing is told."""
    versions = Versions(copies(tmp_path, 1), "slotcon")
    versions.poll()
    names = [str(certificates / name) for name in ("server.pem", "server.key")]
    authority = str(certificates / "ca.pem")
    given = Certificates(*names, authority if mutual else "")
    with both(versions, certificates=given) as server:
        own = [certificates / name for name in ("client.key", "client.pem")]
        key, chain = (path.read_bytes() for path in own)
        ca = (certificates / "ca.pem").read_bytes()
        plain = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        known = grpc.ssl_channel_credentials(ca, key, chain)
        unknown = grpc.ssl_channel_credentials(ca)
        refused = [plain]
        (refused if mutual else []).append(
            grpc.secure_channel(f"127.0.0.1:{server.port}", unknown)
        )
        assert states(grpc.secure_channel(f"127.0.0.1:{server.port}", known)) == [1]
        for channel in refused:
            with pytest.raises(grpc.RpcError) as caught:
                states(channel)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            channel.close()
        context = ssl.create_default_context(cafile=authority)
        if mutual:
            with pytest.raises((urllib.error.URLError, ssl.SSLError, OSError)):
                told(f"https://localhost:{server.rest_port}", context)
            context.load_cert_chain(own[1], own[0])
        answer = told(f"https://localhost:{server.rest_port}", context)
        assert answer["model_version_status"][0]["version"] == "1"
        with pytest.raises(OSError):
            told(f"http://localhost:{server.rest_port}", None)


def states(channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "slotcon"
    ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    return [one.version for one in ask(request, timeout=20).model_version_status]


def told(base, context):
    url = f"{base}/v1/models/slotcon"
    with urllib.request.urlopen(url, timeout=20, context=context) as answer:
        return json.load(answer)


def test_what_cannot_be_served_is_told_in_one_line(ends, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("port", "rest_port"):
            flags = [f"--export_dir={tmp_path}", "--port=0", f"--{name}={port}"]
            status, line = ends("export.server", *flags)
            assert status == 1 and f"--{name}={port}" in line
    broken = tmp_path / "a.pem"
    broken.write_text("no certificate")
    for flags, status, said in [
        (["--version_labels=stable"], 2, "stable:1,canary:2"),
        ([f"--tls_key={broken}"], 2, "must be named both"),
        ([f"--tls_key={broken}", f"--tls_certificate={broken}"], 1, "PEM files"),
    ]:
        ended, line = ends("export.server", f"--export_dir={tmp_path}", *flags)
        assert ended == status and said in line
