"""Servers in a process of their own, and a tiny model for them.

`model_server` is a fixture to import: the tiny model behind the local server, and
behind TF Serving's own binary where there is one on PATH. `serving(folder)` is a server
of any export.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
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
    """`python -m export.server`, or TF Serving's binary, on a port of its own."""

    def __init__(self, folder, *flags, binary=None, port=0):
        if binary:
            port = port or free_ports(1)[0]
            self.command = [binary, f"--port={port}", "--model_name=slotcon"]
            self.command += [f"--model_base_path={folder}"]
            self.command += ["--file_system_poll_wait_seconds=1"]
        else:
            self.command = [sys.executable, "-m", "export.server", f"--port={port}"]
            self.command += [f"--export_dir={folder}", "--poll_seconds=0.2", *flags]
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
        """Outputs of a call, as arrays."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = inputs.pop("model", "slotcon")
        request.model_spec.signature_name = inputs.pop("signature", "")
        if version:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        request.output_filter.extend(output_filter)
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self.predictions.Predict(request, timeout=PATIENCE)
        outputs = {k: tf.make_ndarray(v) for k, v in response.outputs.items()}
        return outputs, response.model_spec


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


def write_tiny_model(path, filters=4):
    """A SavedModel written without this project's exporter.

    Signatures: `serving_default`, `image` uint8 (N, H, W, 3) to `map` and `pooled`;
    `text`, base64 (N,) to `decoded` and `length`, which refuses what is no base64;
    `kinds`, `x` float16 (N,) and `y` int64 (M,) to an output of many dtypes each.

    Args:
        path: pathlib.Path of the version's folder; not there yet.
        filters: Channels of `map`, to tell versions apart.
    """
    image = keras.Input((None, None, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(image)
    found = keras.layers.Conv2D(filters, 3, strides=2)(scaled)
    pooled = keras.layers.GlobalAveragePooling2D()(found)
    model = keras.Model(image, {"map": found, "pooled": pooled})

    def text(text):
        return {
            "decoded": tf.io.decode_base64(text),
            "length": tf.strings.length(text),
        }

    def kinds(x, y):
        return {
            "bfloat16": tf.cast(x, tf.bfloat16),
            "bool": x > 0,
            "float16": 2 * x,
            "scalar": tf.reduce_sum(y),
            "empty": y[:0, None],
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec
    for name, function, signature in [
        (
            "serving_default",
            lambda image: model(image),
            [spec([None, None, None, 3], tf.uint8, "image")],
        ),
        ("text", text, [spec([None], tf.string, "text")]),
        ("kinds", kinds, [spec([None], tf.float16, "x"), spec([None], tf.int64, "y")]),
    ]:
        archive.add_endpoint(name, function, input_signature=signature)
    archive.write_out(str(path), verbose=False)


@pytest.fixture(scope="module", params=["local", "tensorflow_model_server"])
def model_server(request, tmp_path_factory):
    """`Server` of the tiny model as version 1 of its `folder`."""
    binary = binary_of(request)
    folder = tmp_path_factory.mktemp("tiny") / "slotcon"
    write_tiny_model(folder / "1")
    with serving(folder, binary=binary) as server:
        yield server
