"""Latency and throughput of the local server next to the bare SavedModel call."""

import concurrent.futures
import subprocess
import sys
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from export.loading import load_version


def measure_load(folder, images, clients, seconds):
    """Prints a table of concurrent callers; server and bare call take turns.

    Args:
        folder: Of an exported version's parent.
        images: uint8 (N, height, width, 3), sent by every request.
        clients: Numbers of concurrent callers.
        seconds: For each cell, in two turns.
    """
    function, loaded = load_version(folder)["serving_default"]

    def bare():
        return function(image=tf.constant(images))["pooled"].numpy()

    command = [sys.executable, "-m", "export.server", f"--export_dir={folder}"]
    process = subprocess.Popen(
        [*command, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = process.stdout.readline().strip().rpartition(":")[2]
        served = _caller(f"127.0.0.1:{port}", images)
        np.testing.assert_allclose(served(), bare(), rtol=1e-4, atol=1e-4)
        print(f"\nserver, batch {len(images)}, over gRPC on loopback, pooled features")
        head = ("callers", "form", "p50 ms", "p99 ms", "images/s", "over bare")
        print("".join(f"{name:>11}" for name in head))
        for count in clients:
            _row(count, {"bare": bare, "server": served}, len(images), seconds)
    finally:
        process.kill()
        del loaded


def _row(count, calls, batch, seconds):
    latencies = {name: [] for name in calls}
    rates = {name: [] for name in calls}
    for _ in range(2):
        for name, call in calls.items():
            found, rate = _hammer(call, count, seconds / 2)
            latencies[name] += found
            rates[name].append(rate * batch)
    medians = {name: np.median(values) for name, values in latencies.items()}
    for name, values in latencies.items():
        over = medians[name] / medians["bare"] - 1
        print(
            f"{count:11}{name:>11}{1e3 * medians[name]:11.1f}"
            f"{1e3 * np.quantile(values, 0.99):11.1f}{np.mean(rates[name]):11.1f}"
            f"{over:11.1%}",
            flush=True,
        )


def _hammer(call, count, seconds):
    """Latencies of concurrent callers, and their calls per second."""
    end = time.perf_counter() + seconds

    def caller(_):
        found = []
        while time.perf_counter() < end:
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        return found

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        found = [x for values in pool.map(caller, range(count)) for x in values]
    return found, len(found) / (time.perf_counter() - start)


def _caller(address, images):
    channel = grpc.insecure_channel(address)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def call():
        # What a client does for every batch is part of it: packing and unpacking.
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "slotcon"
        request.output_filter.append("pooled")
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
        response = stub.Predict(request, timeout=120)
        return tf.make_ndarray(response.outputs["pooled"])

    return call
