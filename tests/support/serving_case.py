"""Servers in a process of their own.

`serving(folder)` is a server of any export: the local one, or TF Serving's own binary
where there is one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.support.command import ENVIRONMENT, ROOT, free_ports


def binary_of(request):
    """None for the parameter "local", else TF Serving's binary; skips without one."""
    if request.param == "local":
        return None
    binary = request.config.getoption("--server_binary")
    if not binary:
        pytest.skip("no tensorflow_model_server on PATH, and no --server_binary")
    return binary


# Seconds after which an answer will not come any more, on the slowest machine.
PATIENCE = 300


class Server:
    """`python -m export.server`, or TF Serving's binary, on a port of its own.

    Args:
        folder: Of versions.
        flags: More of them, of the local server.
        binary: TF Serving's.
        port: Of gRPC.
        rest: Whether there is REST: `rest_port` has its port.
        binary_flags: More of them, of TF Serving's.
    """

    def __init__(
        self, folder, *flags, binary=None, port=0, rest=False, binary_flags=()
    ):
        self.rest_port = free_ports(1)[0] if rest else 0
        if binary:
            port = port or free_ports(1)[0]
            self.command = [binary, f"--port={port}", "--model_name=slotcon"]
            self.command += [f"--model_base_path={folder}"]
            self.command += ["--file_system_poll_wait_seconds=1", *binary_flags]
            self.command += [f"--rest_api_port={self.rest_port}"]
        else:
            self.command = [sys.executable, "-m", "export.server", f"--port={port}"]
            self.command += [f"--export_dir={folder}", "--poll_seconds=0.2", *flags]
            self.command += [f"--rest_port={self.rest_port}"] if rest else []
        self.port = port
        self.local = binary is None
        self.folder = folder
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the object
        self.start()

    def start(self):
        """Starts it, on the same port if it has had one."""
        command = [
            f"--port={self.port}" if word.startswith("--port=") else word
            for word in self.command
        ]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self._connect()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _connect(self):
        if self.local:
            watchdog = threading.Timer(PATIENCE, self.process.kill)
            watchdog.start()
            line = self.process.stdout.readline()
            watchdog.cancel()
            ready = line.startswith("Serving slotcon version(s)")
            assert ready, f"{line!r}, {self.log()[-2000:]}"
            self.port = int(line.rpartition(":")[2])
        self.address = f"127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", -1)]
        )
        grpc.channel_ready_future(self.channel).result(PATIENCE)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def log(self):
        """What it has written to stderr."""
        # Not by seeking: the process writes at the same place.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def kill(self):
        """At once, as a crash."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def stop(self, number=signal.SIGTERM):
        """With a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def predict(self, *, output_filter=(), version=None, label="", **inputs):
        """Outputs of a call, as arrays; `timeout` is how long it waits."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = inputs.pop("model", "slotcon")
        request.model_spec.signature_name = inputs.pop("signature", "")
        timeout = inputs.pop("timeout", PATIENCE)
        if version:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        request.output_filter.extend(output_filter)
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self.predictions.Predict(request, timeout=timeout)
        outputs = {k: tf.make_ndarray(v) for k, v in response.outputs.items()}
        return outputs, response.model_spec

    def states(self):
        """Dict of version to the name of its state."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "slotcon"
        response = self.models.GetModelStatus(request, timeout=PATIENCE)
        kind = get_model_status_pb2.ModelVersionStatus.State
        return {s.version: kind.Name(s.state) for s in response.model_version_status}

    def ask(self, path, body=None):
        """Status and JSON of an answer over REST; the text, if it is no JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.rest_port}{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data), timeout=PATIENCE
            ) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode()


@contextlib.contextmanager
def serving(folder, *flags, **options):
    """A `Server` that is gone in the end."""
    server = Server(folder, *flags, **options)
    try:
        yield server
    finally:
        server.kill()


def noise(count, seed=0, edge=64):
    """uint8 (count, edge, edge, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, edge, edge, 3), dtype=np.uint8)


@contextlib.contextmanager
def refused(code, words=""):
    """A call that is refused with a code of gRPC, in these words."""
    with pytest.raises(grpc.RpcError) as caught:
        yield caught
    text = caught.value.details()
    assert caught.value.code() == grpc.StatusCode[code], text
    assert words in text, text
    assert text and "Traceback" not in text and 'File "' not in text
