"""Latency, throughput and memory of every way to a served model, in one run."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import grpc
import numpy as np

from benchmarks.serving_caller import MEBIBYTE
from slotcon_tf.processor import cores
from slotcon_tf.serving.warmup import BATCH_SIZES

_ROOT = pathlib.Path(__file__).parents[1]
_CALLER = _ROOT / "benchmarks" / "serving_caller.py"
_HEAD = ("way", "callers", "p50 ms", "p99 ms", "images/s")
_HEAD += ("ready s", "MiB", "server MiB")
# Beside "bare": what TensorFlow's batches do, filled up to the allowed sizes or not.
_BATCHED = {"batched": [], "batched, filled up": list(BATCH_SIZES)}
_ASKED = ("full", "light gRPC", "light REST")


def measure_load(folder, paths, callers, seconds):
    """Prints a row for each way to the model and number of concurrent callers.

    The ways follow each other, each in a process of its own beside, where it is asked,
    one server that has answered before.

    Args:
        folder: Of an exported version's parent.
        paths: Image files, all of them in every request.
        callers: Numbers of concurrent callers.
        seconds: For each row.
    """
    (version,) = (p for p in pathlib.Path(folder).iterdir() if p.name.isdigit())
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
    with Server(folder) as server:
        addresses = {"address": server.address, "rest_address": server.rest_address}
        for way in _ASKED:
            given = {**common, **addresses, "way": way}
            _check(way, _rows(way, given, server), exact)


def _rows(name, settings, server=None):
    """Prints the rows of one way; returns the first image's features."""
    words = [sys.executable, str(_CALLER), json.dumps(settings)]
    done = subprocess.run(words, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    *rows, whole = map(json.loads, done.stdout.splitlines())
    memory = f"{server.memory():11.0f}" if server else f"{'':11}"
    for row in rows:
        p50, p99 = 1e3 * np.quantile(row["seconds"], [0.5, 0.99])
        rate = row["calls_per_second"] * len(settings["files"])
        print(
            f"{name:>20}{row['callers']:11}{p50:11.1f}{p99:11.1f}{rate:11.1f}"
            f"{whole['ready_seconds']:11.2f}{whole['resident_mib']:11.0f}{memory}",
            flush=True,
        )
    return whole["first_row"]


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
            raise RuntimeError(f"The server must start. It said: {line!r}")
        self.address = f"127.0.0.1:{port}"
        self.rest_address = f"127.0.0.1:{rest}"
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(60)
        time.sleep(1)  # REST starts after gRPC
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def memory(self):
        """MiB of the server, resident now."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (x for x in status.splitlines() if x.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / MEBIBYTE
