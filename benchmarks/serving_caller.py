"""One way to ask for features, in a process of its own; prints what it cost as JSON.

Run by its path, since importing this package imports TensorFlow, which the light client
must do without:

    python benchmarks/serving_caller.py '{"way": "light gRPC", "address": ...}'

The ways: "bare", the SavedModel in this process; "batched", the same in TensorFlow's
own batches, as TF Serving makes them, here without a server; "full", gRPC by
TensorFlow's and TF Serving's packages; "light gRPC" and "light REST", by
`slotcon_client`.
"""

import concurrent.futures
import json
import pathlib
import sys
import time

SIGNATURE = "embed"
MEBIBYTE = 2**20
BATCH_MICROSECONDS = 5000  # as in an export's batching_params.pbtxt


def bare(settings):
    """The signature, called in this process."""
    function = _loaded(settings)
    import tensorflow as tf

    return lambda files: function(image_bytes=tf.constant(files))["pooled"].numpy()


def batched(settings):
    """Calls that come at once are computed together."""
    function = _loaded(settings)
    import tensorflow as tf

    sizes = settings["allowed"] or None

    @tf.nondifferentiable_batch_function(
        num_batch_threads=settings["threads"],
        max_batch_size=sizes[-1] if sizes else 32,
        batch_timeout_micros=BATCH_MICROSECONDS,
        allowed_batch_sizes=sizes,
        max_enqueued_batches=100,
    )
    def together(files):
        return function(image_bytes=files)["pooled"]

    call = tf.function(together, [tf.TensorSpec([None], tf.string)], autograph=False)
    return lambda files: call(tf.constant(files)).numpy()


def _loaded(settings):
    import tensorflow as tf

    loaded = tf.saved_model.load(settings["version"])
    _KEPT.append(loaded)
    return loaded.signatures[SIGNATURE]


_KEPT = []  # a signature does not hold what it belongs to


def full(settings):
    """What a client with TensorFlow does for every request."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    channel = grpc.insecure_channel(settings["address"])
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def call(files):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "slotcon"
        request.model_spec.signature_name = SIGNATURE
        request.output_filter.append("pooled")
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
        response = stub.Predict(request, timeout=600)
        return tf.make_ndarray(response.outputs["pooled"])

    return call


def light(settings):
    from slotcon_client import FeatureClient

    transport = "rest" if settings["way"] == "light REST" else "grpc"
    client = FeatureClient(
        settings["rest_address"] if transport == "rest" else settings["address"],
        transport=transport,
        signature=SIGNATURE,
        outputs=("pooled",),
        deadline=600,
    )
    return lambda files: client.predict(files)["pooled"]


WAYS = {
    "bare": bare,
    "batched": batched,
    "full": full,
    "light gRPC": light,
    "light REST": light,
}


def memory(process="self"):
    """MiB of a process, resident now."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    (line,) = (x for x in status.splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / MEBIBYTE


def hammer(call, callers, seconds):
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
    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        found = [x for values in pool.map(caller, range(callers)) for x in values]
    return found, len(found) / (time.perf_counter() - start)


def main(settings):
    before = time.perf_counter()
    call = WAYS[settings["way"]](settings)
    ready, at_start = time.perf_counter() - before, memory()
    files = [pathlib.Path(path).read_bytes() for path in settings["files"]]
    answer = call(files)
    for callers in settings["callers"]:
        # Once with as many callers at once: a batch of a new size is traced or loaded.
        hammer(lambda: call(files), callers, 0.01)
        print(json.dumps({"starts": callers}), flush=True)
        before = time.process_time()
        latencies, rate = hammer(lambda: call(files), callers, settings["seconds"])
        busy = (time.process_time() - before) / len(latencies)
        found = {"callers": callers, "seconds": latencies, "calls_per_second": rate}
        found["core_seconds"] = busy
        print(json.dumps(found), flush=True)
    found = {
        "ready_seconds": ready,
        "ready_mib": at_start,
        "resident_mib": memory(),
        "first_row": [float(x) for x in answer[0]],
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
