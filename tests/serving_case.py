"""A small exported model, and a server of it in a process of its own."""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.test_hosts import free_ports
from tests.test_pretrain import ENVIRONMENT, ROOT

REAL_SERVER = shutil.which("tensorflow_model_server")


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
            self.command += [f"--model_dir={folder}", "--poll_seconds=0.2", *flags]
        self.port = port
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
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if "export.server" in command:
            watchdog = threading.Timer(60, self.process.kill)
            watchdog.start()
            line = self.process.stdout.readline()
            watchdog.cancel()
            assert line.startswith("Serving slotcon version(s)"), line
            self.port = int(line.rpartition(":")[2])
        self.address = f"127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", -1)]
        )
        grpc.channel_ready_future(self.channel).result(60)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def kill(self):
        """At once, as a crash."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def stop(self):
        """With SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

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
        response = self.predictions.Predict(request, timeout=60)
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
