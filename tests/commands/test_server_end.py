"""The local server as a process: it ends within its grace, whatever runs."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from slotcon_tf.serving.warmup import WARMUP_FILE
from tests.support.command import ENVIRONMENT, ROOT, until
from tests.support.serving_case import noise, refused, serving
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

GRACE = 3  # seconds
LATE = 30  # when a machine that does much else has not ended it either
PREDICT = "/v1/models/slotcon:predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("end") / "slotcon"
    write_tiny_model(found / "1")
    return found


def forever(server):
    """Two requests that are never answered."""

    def rest():
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port)
        connection.request("POST", PREDICT, b'{"signature_name":"forever","inputs":1}')
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.getresponse()

    def rpc():
        with contextlib.suppress(grpc.RpcError):
            server.predict(signature="forever", x=np.int32(1), timeout=None)

    for call in (rest, rpc):
        threading.Thread(target=call, daemon=True).start()
    metric = 'slotcon_requests_in_flight{model_name="slotcon"} 2.0'
    page = "/monitoring/prometheus/metrics"
    until(lambda: metric in server.ask(page)[1], "the requests", server.process)


def stalled(server):
    """Clients that send nothing, a part of a head or of a body, or do not read."""
    body = json.dumps({"inputs": {"image": [[[[0, 0, 0]] * 300] * 300]}}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: "
    whole = f"{head}{len(body)}\r\n\r\n".encode() + body
    sent = [b"", head.encode(), f"{head}99\r\n\r\n ".encode(), whole * 3]
    sockets = []
    for words in sent:
        one = socket.create_connection(("127.0.0.1", server.rest_port))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(words)
        sockets.append(one)
    sockets.append(socket.create_connection(("127.0.0.1", server.port)))
    return sockets


@pytest.mark.parametrize("what", [forever, stalled])
def test_it_is_down_within_its_grace(folder, what):
    flags = [f"--grace_seconds={GRACE}", "--max_message_mb=8"]
    with serving(folder, *flags, rest=True) as server:
        kept = what(server)
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < GRACE + LATE
        assert "Traceback" not in server.log()
        assert ("2 requests are given up" in server.log()) == (what is forever)
        del kept


class Stuck(tf.Module):
    """Says that it computes, and does so for ever."""

    def __init__(self, said):
        super().__init__()
        self.said = str(said)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, "x")])
    def answer(self, x):
        with tf.control_dependencies([tf.io.write_file(self.said, "computes")]):
            x = tf.identity(x)
        return {"x": tf.while_loop(lambda x: x > 0, lambda x: [x + 1 - 1], [x])[0]}


def test_it_is_down_while_a_version_is_loaded(tmp_path):
    """Its warm-up request is never answered: nothing is served yet."""
    folder, said = tmp_path / "slotcon", tmp_path / "said"
    model = Stuck(said)
    tf.saved_model.save(model, str(folder / "1"), model.answer)
    log = prediction_log_pb2.PredictionLog()
    one = tf.make_tensor_proto(np.int32(1))
    log.predict_log.request.inputs["x"].CopyFrom(one)
    path = folder / "1" / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(log.SerializeToString())
    flags = [f"--export_dir={folder}", "--port=0", "--grace_seconds=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "export.server", *flags],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        until(said.exists, "the request", process)
        process.send_signal(signal.SIGTERM)
        out, told = process.communicate(timeout=LATE)
        assert process.returncode == 0 and not out and "Traceback" not in told


def test_an_empty_folder_then_versions(tmp_path):
    """It says so, waits, ignores odd names, reports the damaged, ends with Ctrl-C."""
    folder = tmp_path / "slotcon"
    folder.mkdir()
    write_tiny_model(tmp_path / "good")
    with serving(folder) as server:
        assert "No version in" in server.log()
        with refused("NOT_FOUND"):
            server.predict(image=noise(1, edge=16))
        with refused("NOT_FOUND"):
            server.states()
        for name in (".writing-2", "²", "v3", "99999999999999999999"):
            shutil.copytree(tmp_path / "good", folder / name)
        damaged = folder / "3"
        damaged.mkdir()
        (damaged / "saved_model.pb").write_bytes(b"damaged")
        shutil.copytree(tmp_path / "good", tmp_path / "1")
        (tmp_path / "1").rename(folder / "1")
        found = {}

        def available():
            with contextlib.suppress(grpc.RpcError):
                found.update(server.states())
            return found.get(1) == "AVAILABLE"

        until(available, "version 1", server.process)
        assert found == {1: "AVAILABLE", 3: "END"}
        assert "Version 3 of slotcon is damaged" in server.log()
        assert server.predict(image=noise(1, edge=16))[1].version.value == 1
        # What is under way is answered.
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "slotcon"
        images = tf.make_tensor_proto(noise(1000, edge=64))
        request.inputs["image"].CopyFrom(images)
        under_way = server.predictions.Predict.future(request)
        time.sleep(0.3)
        assert server.stop(signal.SIGINT) == 0
        pooled = tf.make_ndarray(under_way.result().outputs["pooled"])
        assert pooled.shape == (1000, 4)
        assert "Traceback" not in server.log()
