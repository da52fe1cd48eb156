"""The local server's REST answers as TF Serving's, to curl and to the client."""

import base64
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from export.client import FeatureClient
from export.server_rest import start_rest
from export.server_versions import Versions


class Lengths(tf.Module):
    """Of files: how long each is. Of images: the mean of each."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def of_bytes(self, image_bytes):
        length = tf.strings.length(image_bytes)
        rows = tf.cast(length, tf.float32)[:, None]
        status = {"ok": length > 0, "reason": tf.cast(length == 0, tf.int32)}
        return {"pooled": rows, **status}

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3], tf.uint8, "image")])
    def of_images(self, image):
        return {"pooled": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2])}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    model = Lengths()
    signatures = {"image_bytes": model.of_bytes, "serving_default": model.of_images}
    tf.saved_model.save(model, str(folder / "1"), signatures)
    versions = Versions(folder, "slotcon", {"stable": 1})
    versions.poll()
    server = start_rest(versions, host="127.0.0.1", port=0, max_message_mb=1)
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(address, path, body=None):
    """Status and JSON of an answer."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
def test_predicts(address, where):
    files = [{"b64": base64.b64encode(b"\xff" * n).decode()} for n in (3, 0)]
    body = {"signature_name": "image_bytes", "inputs": {"image_bytes": files}}
    status, answer = ask(address, f"/v1/models/slotcon{where}:predict", body)
    outputs = {"pooled": [[3.0], [0.0]], "ok": [True, False], "reason": [0, 1]}
    assert (status, answer) == (200, {"outputs": outputs})


def test_predicts_from_pixels(address):
    images = np.arange(12).reshape(1, 2, 2, 3)
    body = {"inputs": {"image": images.tolist()}}
    status, answer = ask(address, "/v1/models/slotcon:predict", body)
    assert (status, answer["outputs"]) == (200, {"pooled": [[4.5, 5.5, 6.5]]})


def test_tells_versions(address):
    status, answer = ask(address, "/v1/models/slotcon")
    assert status == 200
    assert [one["version"] for one in answer["model_version_status"]] == ["1"]


def test_client_reads_it(address):
    with FeatureClient(address, transport="rest", version_label="stable") as client:
        found = client.predict([b"abc", b"a"])
    np.testing.assert_array_equal(found["pooled"], np.float32([[3], [1]]))
    assert found["pooled"].dtype == np.float32 and found["ok"].all()


PREDICT = "/v1/models/slotcon:predict"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/other:predict", {"inputs": {}}, 404, "other"),
        ("/v1/models/slotcon/versions/9:predict", {"inputs": {}}, 404, "9"),
        ("/v1/models/slotcon/labels/no:predict", {"inputs": {}}, 400, "label"),
        ("/v2", {}, 404, "Malformed"),
        (PREDICT, b"{", 400, "JSON"),
        (PREDICT, b"[" * 100_000, 400, "JSON"),
        (PREDICT, {"instances": []}, 400, "instances"),
        (PREDICT, {"signature_name": "no", "inputs": {}}, 400, "image_bytes"),
        (PREDICT, {"signature_name": ["a"], "inputs": {}}, 400, "signature_name"),
        (PREDICT, {"inputs": {"picture": []}}, 400, "picture"),
        (PREDICT, {"inputs": {"image": [[1, 2], [3]]}}, 400, "image"),
        (PREDICT, {"inputs": {"image": [[[[300, 0, 0]]]]}}, 400, "image"),
        (PREDICT, b" " * (2**20 + 1), 400, "at most"),
    ],
)
def test_refuses_in_one_line(address, path, body, status, said):
    found, answer = ask(address, path, body)
    assert found == status and said in answer["error"]


@pytest.mark.parametrize("value", [3, {"b64": "?"}, {"b64": 3}, None])
def test_bytes_are_text_or_base64(address, value):
    body = {"signature_name": "image_bytes", "inputs": {"image_bytes": [value]}}
    status, answer = ask(address, PREDICT, body)
    assert status == 400 and "image_bytes" in answer["error"]


def test_a_port_that_is_taken_is_named(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match=f"rest_port={port}"):
        start_rest(None, host="127.0.0.1", port=port, max_message_mb=1)
