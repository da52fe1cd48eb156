"""What a server of SavedModels promises over REST: the local one, and TF Serving's."""

import base64
import http.client
import json
import math
import urllib.parse

import pytest

PREDICT = "/v1/models/slotcon:predict"


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.mark.parametrize("where", ["", "/versions/2", "/versions/1", "/labels/stable"])
def test_files_in_columns(tiny_server, where):
    files = {"image_bytes": [b64(b"\xff" * 3), b64(b"")]}
    body = {"signature_name": "image_bytes", "inputs": files}
    status, answer = tiny_server.ask(f"/v1/models/slotcon{where}:predict", body)
    outputs = {"pooled": [[3.0], [0.0]], "ok": [True, False], "reason": [0, 1]}
    assert (status, answer) == (200, {"outputs": outputs})


ROWS = [{"a": [1, 2.5], "b": 3}, {"a": [0, -1], "b": 4}]


@pytest.mark.parametrize(
    ("signature", "given", "answer"),
    [
        # One input: the rows themselves, or an object each.
        ("half", {"instances": [1, 2.5]}, {"predictions": [0.5, 1.25]}),
        ("half", {"instances": [{"x": 3}]}, {"predictions": [1.5]}),
        ("half", {"inputs": [1]}, {"outputs": [0.5]}),
        ("half", {"inputs": {"x": [1], "unknown": 0}}, {"outputs": [0.5]}),
        ("forever", {"inputs": -3}, {"outputs": -3}),
        (
            "image_bytes",
            {"instances": [b64(b"ab"), {"b64": "YQ"}, "text"]},
            {
                "predictions": [
                    {"pooled": [size], "ok": True, "reason": 0}
                    for size in (2.0, 1.0, 4.0)
                ]
            },
        ),
        # Several.
        (
            "sums",
            {"instances": ROWS},
            {
                "predictions": [
                    {"sum": 6.5, "even": False, "text": "3"},
                    {"sum": 3.0, "even": True, "text": "4"},
                ]
            },
        ),
        (
            "sums",
            {"inputs": {"a": [[1, 2.5]], "b": [3]}},
            {"outputs": {"sum": [6.5], "even": [False], "text": ["3"]}},
        ),
        # An output whose name says that it is bytes.
        (
            "text",
            {"inputs": ["_w=="]},
            {"outputs": {"decoded_bytes": [b64(b"\xff")], "length": [4]}},
        ),
    ],
)
def test_forms(tiny_server, signature, given, answer):
    body = {"signature_name": signature, **given}
    assert tiny_server.ask(PREDICT, body) == (200, answer)


def test_numbers_keep_their_digits(tiny_server):
    body = b'{"signature_name": "half", "instances": [0.2, 3e-9, NaN, -Infinity]}'
    status, answer = tiny_server.ask(PREDICT, body)
    half, small, none, infinite = answer["predictions"]
    assert status == 200 and (half, small) == (0.1, 1.5e-9)
    assert math.isnan(none) and infinite == -math.inf


def test_pixels(tiny_server):
    image = [[[[9, 8, 7]] * 5] * 5]
    status, answer = tiny_server.ask(PREDICT, {"inputs": {"image": image}})
    assert status == 200 and set(answer["outputs"]) == {"map", "pooled"}
    status, rows = tiny_server.ask(PREDICT, {"instances": image})
    assert rows["predictions"] == [{k: v[0] for k, v in answer["outputs"].items()}]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/other:predict", {"inputs": {}}, 404, "Latest(other)"),
        (
            "/v1/models/slotcon/versions/9:predict",
            {"inputs": {}},
            404,
            "Servable not found for request: Specific(slotcon, 9)",
        ),
        (
            "/v1/models/slotcon/labels/no:predict",
            {"inputs": {}},
            400,
            "Unrecognized servable version label: no",
        ),
        ("/v1/models/slotcon/labels/canary:predict", {"inputs": {}}, 404, "Specific"),
        ("/v1/models/slotcon", {}, 400, "Malformed request: POST /v1/models/slotcon"),
        ("/v1/models/slotcon:other", {}, 400, "Malformed request: POST"),
        ("/v1/models/slotcon/metadata", {}, 400, "Malformed request: POST"),
        (
            f"/v1/models/slotcon/versions/{2**63}:predict",
            {"inputs": {}},
            400,
            "Failed to convert version",
        ),
        (PREDICT, b"", 400, "JSON Parse error"),
        (PREDICT, b"{", 400, "JSON Parse error"),
        (PREDICT, b"[1]", 400, "Is not object"),
        (PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
        (PREDICT, {"instances": [1], "inputs": [1]}, 400, "only one of"),
        (PREDICT, {"instances": 3}, 400, "'instances' to be an list/array"),
        (PREDICT, {"instances": []}, 400, "No values in 'instances' array"),
        (
            PREDICT,
            {"signature_name": "no", "inputs": {}},
            400,
            'Serving signature name: "no" not found in signature def',
        ),
        (
            PREDICT,
            {"signature_name": ["a"], "inputs": {}},
            400,
            "'signature_name' key must be a string value.",
        ),
        (
            PREDICT,
            {"inputs": {"picture": []}},
            400,
            "Missing named input: image in 'inputs' object.",
        ),
        (
            PREDICT,
            {"signature_name": "sums", "inputs": [1]},
            400,
            "expecting an object as multiple input tensors required",
        ),
        (
            PREDICT,
            {"signature_name": "sums", "instances": [1]},
            400,
            "expecting list of objects as multiple input tensors required",
        ),
        (
            PREDICT,
            {"signature_name": "sums", "instances": [ROWS[0], {"a": [1, 2]}]},
            400,
            "keys must be equal to: a,b",
        ),
        (
            PREDICT,
            {"signature_name": "half", "inputs": ["a"]},
            400,
            "is not of expected type: float",
        ),
        (
            PREDICT,
            {"signature_name": "half", "inputs": [2**30 + 1]},
            400,
            "to float without loss of precision",
        ),
        (
            PREDICT,
            {"signature_name": "sums", "inputs": {"a": [[1, 2]], "b": [1.0]}},
            400,
            "is not of expected type: int64",
        ),
        (PREDICT, {"inputs": {"image": [[[[1, 2, 3], [3]]]]}}, 400, "unexpected size"),
        (
            PREDICT,
            {"signature_name": "image_bytes", "instances": [{"b64": "?"}]},
            400,
            "Unable to base64 decode",
        ),
        (
            PREDICT,
            {"signature_name": "image_bytes", "inputs": {"image_bytes": [{"b64": 3}]}},
            400,
            "not formatted correctly for base64 data",
        ),
        (
            PREDICT,
            {"signature_name": "image_bytes", "instances": [None]},
            400,
            "",
        ),
        # What the model itself refuses.
        (PREDICT, {"signature_name": "text", "inputs": ["!"]}, 400, "Base64"),
        (
            "/v1/models/slotcon:classify",
            {"examples": [{"x": 1}]},
            400,
            "No classification inputs found in SignatureDef",
        ),
        (
            "/v1/models/slotcon/versions/1:regress",
            {"examples": [{"x": 1}]},
            400,
            "Expected one output Tensor.",
        ),
        (
            "/v1/models/slotcon:regress",
            {"signature_name": "no", "examples": [{"x": 1}]},
            400,
            "No signature was found with the name: no",
        ),
        ("/v1/models/other:classify", {"examples": [{"x": 1}]}, 404, "Latest(other)"),
        ("/v1/models/slotcon:classify", {}, 400, "'examples'"),
    ],
)
def test_refusals(tiny_server, path, body, status, said):
    found, answer = tiny_server.ask(path, body)
    assert found == status and set(answer) == {"error"}
    assert said in answer["error"] and "Traceback" not in answer["error"]


def test_status(tiny_server):
    status, answer = tiny_server.ask("/v1/models/slotcon")
    versions = [one["version"] for one in answer["model_version_status"]]
    assert status == 200 and sorted(versions) == ["1", "2"]
    one = {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    status, answer = tiny_server.ask("/v1/models/slotcon/versions/1")
    assert (status, answer) == (200, {"model_version_status": [one]})
    # A label is not looked at.
    assert len(tiny_server.ask("/v1/models/slotcon/labels/stable")[1].popitem()[1]) == 2
    status, answer = tiny_server.ask("/v1/models/slotcon/versions/7")
    error = "Could not find version 7 of model slotcon"
    assert (status, answer) == (404, {"error": error})
    assert tiny_server.ask("/v1/models/other")[0] == 404


def test_metadata(tiny_server):
    for where, version in (("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")):
        status, answer = tiny_server.ask(f"/v1/models/slotcon{where}/metadata")
        spec = {"name": "slotcon", "signature_name": "", "version": version}
        assert status == 200 and answer["model_spec"] == spec
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        image = signatures["serving_default"]["inputs"]["image"]
        assert image["dtype"] == "DT_UINT8"
        sizes = [axis["size"] for axis in image["tensor_shape"]["dim"]]
        assert sizes == ["-1", "-1", "-1", "3"]
        assert signatures["sums"]["method_name"] == "tensorflow/serving/predict"
    assert tiny_server.ask("/v1/models/slotcon/versions/7/metadata")[0] == 404


def test_names_are_unescaped(tiny_server):
    name = urllib.parse.quote("slotcon").replace("s", "%73")
    assert tiny_server.ask(f"/v1/models/{name}")[0] == 200


def test_connections_are_kept(tiny_server):
    """One connection for all requests, refused ones and those in pieces included."""
    connection = http.client.HTTPConnection("127.0.0.1", tiny_server.rest_port, 60)
    body = json.dumps({"signature_name": "half", "instances": [4]}).encode()
    sockets = set()
    for path, sent in [
        (PREDICT, body),
        (PREDICT, b"{}"),
        (PREDICT, iter([body[:9], body[9:]])),
        (PREDICT, body),
    ]:
        connection.request("POST", path, sent)
        answer = connection.getresponse()
        text = json.loads(answer.read())
        assert answer.status == (400 if sent == b"{}" else 200)
        assert answer.status == 400 or text == {"predictions": [2.0]}
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


def test_metrics(tiny_server):
    assert tiny_server.ask(PREDICT, {"signature_name": "half", "inputs": [1]})[0] == 200
    status, page = tiny_server.ask("/monitoring/prometheus/metrics")
    assert status == 200
    count = ':tensorflow:serving:request_count{model_name="slotcon",status="OK"}'
    (line,) = [line for line in page.splitlines() if line.startswith(count)]
    assert float(line.split()[-1]) >= 1
    calls = [x for x in page.splitlines() if ":request_latency_count{" in x]
    labels = ('API="Predict"', 'entrypoint="REST"', 'model_name="slotcon"')
    assert any(all(label in line for label in labels) for line in calls)
