"""The local server answers as TF Serving does; its own process, real gRPC."""

import concurrent.futures
import shutil
import time

import grpc
import numpy as np
import pytest

from tests.support.command import until
from tests.support.picture_case import webp_frames
from tests.support.saved_case import files, session_answers
from tests.support.serving_case import binary_of, noise, serving

# What it promises of TF Serving's calls, on a tiny model: test_serving_contract.
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


def test_empty_batches_and_animations_are_answered(server):
    nothing = np.array([], object)
    found, _ = server.predict(signature="image_bytes", image_bytes=nothing)
    assert {key: len(value) for key, value in found.items()} == dict.fromkeys(
        ("pooled", "map", "ok", "reason"), 0
    )
    animation = webp_frames(0)
    found, _ = server.predict(signature="image_bytes", image_bytes=[animation])
    assert found["ok"][0]


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
            until(lambda: server.states().get(2) == "AVAILABLE")
            shutil.copytree(folder / "1", models / ".writing")
            (models / ".writing" / "saved_model.pb").write_bytes(b"damaged")
            (models / ".writing").rename(models / "3")
            until(lambda: server.states().get(3) == "END")
            time.sleep(0.5)
            stop.append(True)
        assert not failed and set(answered) == {1, 2}
        assert answered[-1] == 2
        assert server.states() == {1: "AVAILABLE", 2: "AVAILABLE", 3: "END"}
        assert server.predict(image=noise(1), label="stable")[1].version.value == 1
        shutil.rmtree(models / "2")
        until(lambda: server.states()[2] == "END")
        assert server.predict(image=noise(1))[1].version.value == 1
