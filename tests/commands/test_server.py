"""The local server answers as TF Serving does; its own process, real gRPC."""

import concurrent.futures
import shutil
import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
)

from tests.support.command import until
from tests.support.picture_case import webp_frames
from tests.support.saved_case import files, session_answers
from tests.support.serving_case import binary_of, noise, serving

# Quick tests of the same server, with a tiny model: test_server_protocol.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(exported):
    return exported.parent


@pytest.fixture(scope="module")
def answer(exported):
    return session_answers(exported)[0]


@pytest.fixture(scope="module", params=["local", "tensorflow_model_server"])
def server(request, folder):
    with serving(folder, binary=binary_of(request)) as started:
        yield started


def test_answers_are_the_saved_models(server, answer):
    content, _ = files()
    for name, key, value in [
        ("", "image", noise(3)),
        ("pyramid", "image", noise(1, edge=96)),
        ("image_bytes", "image_bytes", content),
        ("objects", "image_bytes", content),
    ]:
        found, spec = server.predict(signature=name, **{key: value})
        truth = answer(name or "serving_default", value)
        assert set(found) == set(truth)
        for output, expected in truth.items():
            np.testing.assert_allclose(found[output], expected, atol=1e-5)
        assert spec.name == "slotcon" and spec.version.value == 1
        assert spec.signature_name == (name or "serving_default")
    found, _ = server.predict(image=noise(2), output_filter=["pooled"], version=1)
    assert set(found) == {"pooled"}


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({"model": "other", "image": noise(1)}, "NOT_FOUND", "Latest.other"),
        ({"version": 9, "image": noise(1)}, "NOT_FOUND", "Specific.slotcon, 9"),
        ({"label": "stable", "image": noise(1)}, "INVALID_ARGUMENT", "stable"),
        ({"signature": "no", "image": noise(1)}, "INVALID_ARGUMENT", "signature"),
        ({"picture": noise(1)}, "INVALID_ARGUMENT", "image.*picture"),
        ({}, "INVALID_ARGUMENT", "image"),
        ({"image": noise(1).astype("f4")}, "INVALID_ARGUMENT", "uint8.*float"),
        ({"image": noise(1)[0]}, "INVALID_ARGUMENT", None),
        ({"image": noise(1), "output_filter": ["no"]}, "INVALID_ARGUMENT", "no"),
        ({"image": noise(1)[:, :0]}, "INVALID_ARGUMENT", "a pixel high and wide"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(server, request_, code, message):
    with pytest.raises(grpc.RpcError, match=message) as caught:
        server.predict(**request_)
    assert caught.value.code() == grpc.StatusCode[code]
    assert "Traceback" not in caught.value.details()


def test_empty_batches_and_animations_are_answered(server):
    nothing = np.array([], object)
    found, _ = server.predict(signature="image_bytes", image_bytes=nothing)
    assert {key: len(value) for key, value in found.items()} == dict.fromkeys(
        ("pooled", "map", "ok", "reason"), 0
    )
    animation = webp_frames(0)
    found, _ = server.predict(signature="image_bytes", image_bytes=[animation])
    assert found["ok"][0]


def test_metadata_and_status(server):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "slotcon"
    with pytest.raises(grpc.RpcError) as caught:
        server.predictions.GetModelMetadata(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    request.metadata_field.append("signature_def")
    response = server.predictions.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    names = {"serving_default", "image_bytes", "groups", "objects", "pyramid"}
    assert names <= set(signatures.signature_def)
    outputs = signatures.signature_def["groups"].outputs
    assert set(outputs) == {"assignments", "confidence", "ok", "reason"}
    status = states(server)
    assert status == {1: "AVAILABLE"}
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "other"
    with pytest.raises(grpc.RpcError) as caught:
        server.models.GetModelStatus(request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def states(server):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "slotcon"
    response = server.models.GetModelStatus(request)
    kind = get_model_status_pb2.ModelVersionStatus.State
    return {s.version: kind.Name(s.state) for s in response.model_version_status}


def test_concurrent_requests_are_not_mixed_up(server, answer):
    images = [noise(1 + i % 3, seed=i) for i in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: server.predict(image=x)[0]["pooled"], images))
    for image, pooled in zip(images, found, strict=True):
        truth = answer("serving_default", image)["pooled"]
        np.testing.assert_allclose(pooled, truth, atol=1e-5)


def test_versions_come_and_go_under_load(folder, tmp_path):
    """Version 2 is loaded while requests run; a damaged 3 leaves it; labels hold 1."""
    models = tmp_path / "models"
    shutil.copytree(folder, models)
    with serving(models, "--version_labels=stable:1") as server:
        stop, answered, failed = [], [], []

        def ask():
            while not stop:
                try:
                    answered.append(server.predict(image=noise(1))[1].version.value)
                except grpc.RpcError as error:
                    failed.append(error)

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(ask)
            shutil.copytree(folder / "1", models / ".writing")
            (models / ".writing").rename(models / "2")
            until(lambda: states(server).get(2) == "AVAILABLE")
            shutil.copytree(folder / "1", models / ".writing")
            (models / ".writing" / "saved_model.pb").write_bytes(b"damaged")
            (models / ".writing").rename(models / "3")
            until(lambda: states(server).get(3) == "END")
            time.sleep(0.5)
            stop.append(True)
        assert not failed and set(answered) == {1, 2}
        assert answered[-1] == 2
        assert states(server) == {1: "AVAILABLE", 2: "AVAILABLE", 3: "END"}
        assert server.predict(image=noise(1), label="stable")[1].version.value == 1
        shutil.rmtree(models / "2")
        until(lambda: states(server)[2] == "END")
        assert server.predict(image=noise(1))[1].version.value == 1


def test_limits_and_what_is_not_implemented(folder):
    with serving(folder, "--max_message_mb=1") as server:
        with pytest.raises(grpc.RpcError) as caught:
            server.predict(image=noise(1, edge=700))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.predict(image=noise(1))[0]["pooled"].shape == (1, 64)
        with pytest.raises(grpc.RpcError) as caught:
            server.predictions.Classify(classification_pb2.ClassificationRequest())
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        # A request under way when the end is asked for is answered.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(server.predict, image=noise(40, edge=72))
            time.sleep(0.05)
            assert server.stop() == 0
            assert under_way.result()[0]["pooled"].shape == (40, 64)
