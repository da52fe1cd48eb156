"""Latency, throughput and memory of every way to a served model, in one run."""

import base64
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.serving_caller import memory
from slotcon_tf.processor import cores
from slotcon_tf.serving.warmup import BATCH_SIZES

_ROOT = pathlib.Path(__file__).parents[1]
_CALLER = _ROOT / "benchmarks" / "serving_caller.py"
_HEAD = ("way", "callers", "p50 ms", "p99 ms", "images/s")
_HEAD += ("core ms", "ready s", "MiB", "server MiB")
# Beside "bare": what TensorFlow's batches do, filled up to the allowed sizes or not.
_BATCHED = {"batched": [], "batched, filled up": list(BATCH_SIZES)}
_ASKED = ("full", "light gRPC", "light REST")


def measure_load(version, paths, callers, seconds):
    """Prints a row for each way to the model and number of concurrent callers.

    The ways follow each other, each in a process of its own beside, where it is asked,
    one server that has answered before. "batched" is in the client's process, without a
    server: the development server does not batch.

    "core ms" are those of client and server together for an image of the row; they mean
    something on a shared machine, too.

    Args:
        version: Folder of what is served.
        paths: Image files, all of them in every request.
        callers: Numbers of concurrent callers.
        seconds: For each row.
    """
    common = {
        "version": str(version),
        "files": [str(path) for path in paths],
        "callers": list(callers),
        "seconds": seconds,
        "threads": cores(),
    }
    size = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"\nsignature embed, {len(paths)} JPEG of {size / 1e3:.0f} kB a request")
    print("".join(f"{name:>20}" if name == "way" else f"{name:>11}" for name in _HEAD))
    exact = _rows("bare", {**common, "way": "bare"})
    for name, allowed in _BATCHED.items():
        given = {**common, "way": "batched", "allowed": allowed}
        _check(name, _rows(name, given), exact)
    with Server(version.parent) as server:
        addresses = {"address": server.address, "rest_address": server.rest_address}
        for way in _ASKED:
            given = {**common, **addresses, "way": way}
            _check(way, _rows(way, given, server), exact)
        _sizes(server, paths[0])


def _rows(name, settings, server=None):
    """Prints the rows of one way; returns the first image's features."""
    rows, whole = _asked(name, settings, server)
    memory_ = f"{memory(server.process.pid):11.0f}" if server else f"{'':11}"
    for row, served in rows:
        busy = row["core_seconds"] + served / len(row["seconds"])
        busy *= 1e3 / len(settings["files"])
        p50, p99 = 1e3 * np.quantile(row["seconds"], [0.5, 0.99])
        rate = row["calls_per_second"] * len(settings["files"])
        print(
            f"{name:>20}{row['callers']:11}{p50:11.1f}{p99:11.1f}{rate:11.1f}{busy:11.1f}"
            f"{whole['ready_seconds']:11.2f}{whole['resident_mib']:11.0f}{memory_}",
            flush=True,
        )
    return whole["first_row"]


def _asked(name, settings, server):
    """Rows of a caller, with the seconds of a core that the server took for each."""
    words = [sys.executable, str(_CALLER), json.dumps(settings)]
    rows, found, before = [], {}, 0.0
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            now, found = server.core_seconds() if server else 0.0, json.loads(line)
            if "starts" in found:
                before = now
            elif "seconds" in found:
                rows.append((found, now - before))
        if process.wait():
            errors.seek(0)
            raise RuntimeError(f"{name} failed: {errors.read()[-2000:]}")
    return rows, found


def _sizes(server, path):
    """Prints what goes over the wire for an image, of each signature and transport."""
    pixels = np.asarray(Image.open(path).resize((224, 224)))[None]
    print(f"\n{'signature':>20}{'transport':>11}{'request kB':>12}{'answer kB':>11}")
    for signature, name, value in [
        ("embed", "image_bytes", [path.read_bytes()]),
        ("image_bytes", "image_bytes", [path.read_bytes()]),
        ("serving_default", "image", pixels),
    ]:
        for transport, ask in (("gRPC", _by_grpc), ("REST", _by_rest)):
            sent, got = (n / 1e3 for n in ask(server, signature, name, value))
            print(f"{signature:>20}{transport:>11}{sent:12.1f}{got:11.1f}", flush=True)


def _by_grpc(server, signature, name, value):
    """Bytes of a request and its answer, whole."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "slotcon"
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(request, timeout=600)
    return request.ByteSize(), answer.ByteSize()


def _by_rest(server, signature, name, value):
    if name == "image_bytes":
        value = [{"b64": base64.b64encode(x).decode()} for x in value]
    else:
        value = value.tolist()
    body = {"signature_name": signature, "inputs": {name: value}}
    body = json.dumps(body, separators=(",", ":")).encode()
    url = f"http://{server.rest_address}/v1/models/slotcon:predict"
    with urllib.request.urlopen(url, body, timeout=600) as answer:
        return len(body), len(answer.read())


def _check(name, found, exact):
    far = np.abs(np.subtract(found, exact)).max()
    if far > 1e-3 * np.abs(exact).max():
        raise RuntimeError(f"{name} must answer as the SavedModel. It is {far} off.")


def _environment():
    return {**os.environ, "PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}


class Server:
    """`export.server` of a folder, on both transports; ended at the end."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            rest = free.getsockname()[1]
        words = [sys.executable, "-m", "export.server", f"--export_dir={self.folder}"]
        self.process = subprocess.Popen(
            [*words, "--port=0", f"--rest_port={rest}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=_ROOT,
            env=_environment(),
        )
        line = self.process.stdout.readline()
        port = line.strip().rpartition(":")[2]
        if not port.isdigit():
            self.process.kill()
            raise RuntimeError(
                f"The server must start. It said: {line!r}. Try {' '.join(words)}"
            )
        self.address = f"127.0.0.1:{port}"
        self.rest_address = f"127.0.0.1:{rest}"
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(60)
        time.sleep(1)  # REST starts after gRPC
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def core_seconds(self):
        """Of the processor, that the server has taken."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = map(int, fields.rpartition(")")[2].split()[11:13])
        return (user + system) / os.sysconf("SC_CLK_TCK")
