"""What a request may ask of the local server, and how long a client may take."""

import errno
import http.client
import json
import resource
import socket
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.server_errors import Refused
from export.server_json_read import parse
from export.server_tensors import Limits
from export.server_versions import Versions
from export.server_wire import read_predict, without_examples
from tests.support.command import until
from tests.support.server_case import both
from tests.support.serving_case import noise, refused
from tests.support.tiny_model import write_tiny_model

LIMIT = 8 * 2**20
SECONDS = 0.7  # that a client may take
PREDICT = "/v1/models/slotcon:predict"


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    write_tiny_model(folder / "1")
    found = Versions(folder, "slotcon")
    found.poll()
    return found


@pytest.fixture(scope="module")
def server(versions):
    with both(versions, Limits(LIMIT, 16), client_seconds=SECONDS) as started:
        yield started


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as found:
        yield found


def varint(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def of_tensor(content):
    """A PredictRequest whose input `image` is a tensor of these bytes."""
    spec, entry = field(1, b"slotcon"), field(1, b"image") + field(2, content)
    return field(1, spec) + field(2, entry)


MANY = 4_000_000
LARGE = {
    "axes": of_tensor(field(2, field(2, b"") * MANY)),
    "strings": of_tensor(field(8, b"") * MANY),
    "outputs": field(3, b"") * MANY,
    "numbers of a byte": of_tensor(field(10, b"\1" * MANY)),
    "numbers one by one": of_tensor(b"\x50\1" * MANY),
    "inputs": field(2, b"") * MANY,
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_message_is_not_read_before_it_is_looked_through(kind):
    """Read, each of these would take hundreds of megabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused, match="must have at most"):
        read_predict(LARGE[kind], LIMIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


@pytest.mark.parametrize(
    "data",
    [
        of_tensor(b"\x2a\x20ab"),  # ends within a list
        b"\x0b" * 9,  # groups, which nobody sends
        b"\xff" * 99,
        b"\x12",
        of_tensor(field(15, b"")),  # a variant
    ],
)
def test_damaged_messages_are_refused(channel, data):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with refused("INVALID_ARGUMENT"):
        call(data, timeout=60)


def test_examples_are_not_read():
    spec = field(1, field(1, b"slotcon"))
    assert without_examples(spec + field(2, b"\x0a\x00" * MANY)) == spec


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
    ("request_", "words"),
    [
        (malformed(content=b"abc"), "tensor parsing error: image"),
        (malformed(shape=None), "of shape unknown"),
        (malformed(shape=(-1, 9, 9, 3)), "of shape unknown"),
        (malformed(dtype=0), "Received: dtype 0"),
        (malformed(dtype=999), "Received: dtype 999"),
        # Some bytes that ask for 3 TB.
        (malformed(shape=(1, 2**20, 2**20, 3)), f"at most {LIMIT} bytes"),
        (malformed(shape=(17, 1, 1, 3)), "at most 16 rows"),
    ],
)
def test_malformed_requests(channel, request_, words):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with refused("INVALID_ARGUMENT", words):
        stub.Predict(request_, timeout=60)


def test_a_message_that_is_too_long(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with refused("RESOURCE_EXHAUSTED"):
        stub.Predict(malformed(content=b"a" * LIMIT), timeout=60)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 100_000, "JSON Parse error"),
        (b'{"inputs": [' + b"[]," * 1_100_000 + b"1]}", "fewer values"),
        (b'{"inputs": [' + b"1.5," * 2_500_000 + b"1]}", "fewer values"),
        (b'{"inputs": ' + b"9" * 1_000_000 + b"}", "JSON Parse error"),
    ],
    ids=["deep", "lists", "numbers", "digits"],
)
def test_json_is_not_read_before_it_is_looked_through(body, words):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused, match=words):
        parse(body, LIMIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


def ask(server, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, 60)
    connection.request("POST", PREDICT, body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())["error"]


def test_bodies_that_are_too_long(server):
    """Told before, or found while they come."""
    for body in (b" " * (LIMIT + 1), iter([b" " * 2**20] * 9)):
        status, error = ask(server, body)
        assert status == 400 and f"at most {LIMIT} bytes" in error
    body = {"signature_name": "half", "instances": [0] * 17}
    assert "at most 16 rows" in ask(server, json.dumps(body))[1]


def connect(server):
    return socket.create_connection(("127.0.0.1", server.rest_port), 30)


HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".encode()


def test_a_body_that_drips_is_given_up(server):
    with connect(server) as drips:
        drips.sendall(HEAD)
        start = time.monotonic()
        drips.settimeout(0.05)
        answer = b""
        while not answer:
            drips.sendall(b" ")
            try:
                answer = drips.recv(1000)
            except TimeoutError:
                assert time.monotonic() < start + 30
        assert answer.startswith(b"HTTP/1.1 408 ") and b"seconds" in answer


@pytest.mark.parametrize("sent", [b"", b"POST /v1/mod", HEAD.replace(b"100", b"0")])
def test_a_connection_without_a_request_is_closed(server, sent):
    with connect(server) as silent:
        silent.sendall(sent)
        while silent.recv(1000):
            pass  # the answer to a request, if it was one


def test_who_does_not_read_is_not_waited_for(server):
    image = {"inputs": {"image": [[[[1, 2, 3]] * 600] * 600]}}
    body = json.dumps(image, separators=(",", ":")).encode()
    with connect(server) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = HEAD.replace(b"100", str(len(body)).encode())
        deaf.sendall(head + body)
        deaf.sendall(head + body)
        ended = (errno.ECONNRESET, errno.EPIPE)
        until(lambda: deaf.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in ended)
    assert ask(server, b"{}")[0] == 400


def test_health_is_told_while_all_threads_compute(versions):
    with both(versions, threads=1) as server:
        address = f"127.0.0.1:{server.port}"
        with grpc.insecure_channel(address) as channel:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "slotcon"
            request.model_spec.signature_name = "forever"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.int32(1)))
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            busy = stub.Predict.future(request, timeout=5)
            until(lambda: server.metrics.in_flight, "the request")
            check = health_pb2_grpc.HealthStub(channel).Check
            asked = health_pb2.HealthCheckRequest(
                service="tensorflow.serving.PredictionService"
            )
            answer = check(asked, timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as unknown:
                check(health_pb2.HealthCheckRequest(service="none"), timeout=60)
            assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
            status = get_model_status_pb2.GetModelStatusRequest()
            status.model_spec.name = "slotcon"
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            assert models.GetModelStatus(status, timeout=60).model_version_status
            assert get(server, "/healthz") == (200, b"SERVING\n")
            page = get(server, "/monitoring/prometheus/metrics")[1].decode()
            assert 'slotcon_requests_in_flight{model_name="slotcon"} 1.0' in page
            assert not busy.done()
            assert busy.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def get(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, 60)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_without_a_version_it_does_not_serve(tmp_path):
    versions = Versions(tmp_path, "slotcon")
    with (
        both(versions) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        check = health_pb2_grpc.HealthStub(channel).Check
        states = health_pb2.HealthCheckResponse
        asked = health_pb2.HealthCheckRequest()
        assert check(asked, timeout=60).status == states.NOT_SERVING
        assert get(server, "/readyz") == (503, b"NOT_SERVING\n")
        assert get(server, "/livez")[0] == 200
        assert get(server, "/else")[0] == 404
        write_tiny_model(tmp_path / "4")
        versions.poll()
        server.grpc.tell_health()
        assert check(asked, timeout=60).status == states.SERVING
        assert get(server, "/readyz")[0] == 200
        page = get(server, "/monitoring/prometheus/metrics")[1].decode()
        assert 'slotcon_version_loaded{model_name="slotcon",version="4"} 1.0' in page


def test_pixels_of_the_largest_message_are_answered(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = malformed(shape=(1, 64, 64, 3), content=noise(1).tobytes())
    assert stub.Predict(request, timeout=60).outputs["pooled"]
