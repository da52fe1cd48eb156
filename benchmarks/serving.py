"""Images per second of an exported ResNet-50, next to keras.applications' own.

    python -m benchmarks.serving

Every SavedModel is loaded into a session, as TF Serving does, and gives the pooled
features of the same images of 224 px, in turns. Ours starts from uint8 and normalises
in the graph; the other gets float32 as it is. The int8 file runs in the LiteRT
interpreter, the ONNX file in ONNX Runtime. Errors are those of the pooled features
against the exact encoder's.

Then one table of every way to ask: the bare SavedModel, with and without TensorFlow's
batching, both in the caller's process, and the development server, which does not
batch, by the light client (gRPC, REST) and by a client with TensorFlow; p50, p99,
images/s, seconds until a client is ready, and MiB resident of client and server. Each
is a process of its own. --batches= leaves the first part out. Batching within TF
Serving is not measured: no server of it is started.
"""

import dataclasses
import functools
import pathlib
import statistics
import tempfile

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import generate, in_turns, machine, median_ratio
from benchmarks.serving_load import measure_load
from slotcon_tf import backbone
from slotcon_tf.data.drawing import draw_scene
from slotcon_tf.images import normalize
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting
from slotcon_tf.serving.archive import export_model, pyramid_model
from slotcon_tf.serving.folding import fold_batch_norm
from slotcon_tf.serving.onnx_file import export_onnx_files
from slotcon_tf.serving.precision import distance
from slotcon_tf.serving.quantization import in_interpreter, quantize_int8
from slotcon_tf.serving.signatures import ServedModel, ServingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingConfig(Config):
    batches: tuple[str, ...] = setting(("1", "8", "32"), "Batch sizes.")
    rounds: int = setting(7, "Timed calls of each.", low=1)
    arch: str = setting("resnet50", "The encoder.")
    clients: tuple[str, ...] = setting(("1", "8"), "Concurrent callers.")
    load_batch: int = setting(1, "Images of their requests.", low=1)
    seconds: float = setting(10.0, "For each number of callers and way.", low=0.0)
    interpreter_threads: int = setting(
        2, "Of the int8 interpreter.", low=1, aliases=("threads",)
    )


_SIZE = 224
_CALIBRATION = 64  # images
REFERENCE = "keras.applications.ResNet50"


def measure(config: ServingConfig) -> None:
    pictures = np.stack(
        [
            draw_scene(np.random.default_rng(i), _SIZE, _SIZE)[0]
            for i in range(_CALIBRATION + 32)
        ]
    )
    calibration, images = pictures[:_CALIBRATION], pictures[_CALIBRATION:]
    batches = tuple(map(int, config.batches))
    encoder = backbone(config.arch)
    if batches:
        settle(encoder, calibration)
    with tempfile.TemporaryDirectory() as folder:
        print(machine())
        folder = pathlib.Path(folder)
        version = export_model(encoder, folder / "served", warmup_batches=(1, 8))
        if batches:
            models = export_all(
                encoder, version, calibration, folder, config.interpreter_threads
            )
            errors(encoder, models, images)
        for batch in batches:
            compare(models, images[:batch], config.rounds)
        if config.clients:
            paths = generate(folder / "photos", config.load_batch)
            measure_load(version, paths, map(int, config.clients), config.seconds)


def settle(encoder, images):
    """Statistics and residual branches come into use, as after training.

    An untrained one's last normalisations multiply by 0 and hide half of the network.
    """
    for layer in encoder.layers:
        if hasattr(layer, "gamma") and not np.any(layer.gamma):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
    for _ in range(5):
        for start in range(0, len(images), 16):
            part = tf.cast(images[start : start + 16], tf.float32)
            encoder(normalize(part), training=True)


def export_all(encoder, version, calibration, folder, threads):
    """Of each form, a function of images to pooled features, and their dtype."""
    reference = keras.applications.ResNet50(
        include_top=False, weights=None, pooling="avg"
    )
    reference.export(str(folder / "reference"), verbose=False)
    plain = keras.export.ExportArchive()
    plain.track(encoder)
    served = ServedModel(pyramid_model(encoder), None, None, ServingOptions())
    function, signature = served.signatures()["serving_default"]
    plain.add_endpoint("serving_default", function, input_signature=signature)
    plain.write_out(str(folder / "plain"), verbose=False)
    quantized = quantize_int8(fold_batch_norm(encoder), calibration)
    return {
        REFERENCE: in_session(folder / "reference"),
        "not folded": in_session(folder / "plain"),
        "float32": in_session(version),
        "bfloat16": in_session(
            export_model(encoder, folder / "bfloat16", precision="bfloat16")
        ),
        "int8, LiteRT": (in_interpreter(quantized, threads), np.uint8),
        "float32, ONNX Runtime": in_onnx_runtime(encoder, folder / "onnx"),
    }


def in_session(path):
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
    signature = meta.signature_def["serving_default"]
    (source,) = signature.inputs.values()
    outputs = signature.outputs
    pooled = outputs["pooled"] if "pooled" in outputs else next(iter(outputs.values()))
    call = session.make_callable(pooled.name, [source.name])
    return call, tf.as_dtype(source.dtype).as_numpy_dtype


def in_onnx_runtime(encoder, folder):
    import onnxruntime

    path = export_onnx_files(encoder, folder)["pooled"]
    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(["pooled"], {"image": images})[0], np.uint8


def errors(encoder, models, images):
    """Distance of each form's pooled features from the encoder's own."""
    maps = encoder(normalize(tf.cast(images, tf.float32)), training=False)
    exact = np.mean(maps, axis=(1, 2))
    print(f"\n{'form':30}{'relative error':>16}{'smallest cosine':>17}")
    for name, (run, dtype) in models.items():
        if name == REFERENCE:
            continue
        far = distance(run(images.astype(dtype)), exact)
        print(f"{name:30}{far['relative_error']:16.2e}{far['smallest_cosine']:17.6f}")


def compare(models, images, rounds):
    runs = {
        name: functools.partial(run, images.astype(dtype))
        for name, (run, dtype) in models.items()
    }
    seconds = in_turns(runs, rounds)
    print(f"\n{f'batch {len(images)}':30}{'images/s':>10}{'ratio':>8}")
    for name, values in seconds.items():
        rate = len(images) / statistics.median(values)
        ratio = median_ratio(seconds[REFERENCE], values)
        print(f"{name:30}{rate:10.1f}{ratio:8.2f}", flush=True)


main = Command("serving", ServingConfig, measure, __doc__)

if __name__ == "__main__":
    main()
