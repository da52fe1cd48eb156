"""What low precision costs: an int8 file, and distances from float32."""

from __future__ import annotations

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.serving.folding import can_fold, fold_batch_norm
from slotcon_tf.serving.quantization import in_interpreter, quantize_int8
from slotcon_tf.serving.signatures import ServedModel

INT8_FILE = "assets.extra/encoder_int8.tflite"
REPORT_FILE = "assets.extra/precision.json"
_BATCH = 16


def write_quantized(
    folder: pathlib.Path,
    encoder: keras.Model,
    served: ServedModel,
    quantize: str | None,
    images: np.ndarray | None,
) -> None:
    """Writes the int8 file if it is asked for, and the report if there are images.

    Args:
        folder: Of the version.
        encoder: Keras model, normalised images to a map.
        served: The `ServedModel` made of it.
        quantize: "int8" or None.
        images: uint8 (M, height, width, 3), or None.

    Raises:
        ValueError: If int8 is asked for without images, or of an encoder that is no
            functional model.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.serving.signatures import ServingOptions
        >>> images = keras.Input((None, None, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
        >>> pyramid = keras.Model(images, {"map": encoder.output})
        >>> served = ServedModel(pyramid, None, None, ServingOptions())
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> photos = np.full((2, 8, 8, 3), 99, np.uint8)
        >>> write_quantized(folder, encoder, served, None, photos)
        >>> json.loads((folder / REPORT_FILE).read_text())["images"]
        2
    """
    if quantize and (images is None or not can_fold(encoder)):
        raise ValueError(
            "quantize='int8' needs images like those to come, and an encoder that is a "
            f"functional Keras model. Received: {'no' if images is None else 'some'} "
            f"images and {encoder.name!r}."
        )
    if images is None:
        return
    (folder / REPORT_FILE).parent.mkdir(exist_ok=True)
    exact = _in_batches(lambda x: np.mean(_maps(encoder, x), axis=(1, 2)), images)
    found = {
        "served": _in_batches(
            lambda x: served.features(tf.constant(x))["pooled"], images
        )
    }
    if quantize:
        content = quantize_int8(
            fold_batch_norm(encoder), images, statistics_of(encoder)
        )
        (folder / INT8_FILE).write_bytes(content)
        found["int8"] = _in_batches(in_interpreter(content), images)
    report = {name: distance(values, exact) for name, values in found.items()}
    text = json.dumps({"images": len(images), **report}, indent=2)
    (folder / REPORT_FILE).write_text(text + "\n")


def distance(found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Of features (M, C): relative error in norm, and the smallest cosine.

    Example:
        >>> distance(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]))
        {'relative_error': 0.5, 'smallest_cosine': 1.0}
    """
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    smallest = cosines(found, exact).min()
    return {"relative_error": float(error), "smallest_cosine": float(smallest)}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of two arrays (M, C): (M,).

    Example:
        >>> cosines(np.array([[1.0, 0.0]]), np.array([[0.0, 3.0]]))
        array([0.])
    """
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, 1e-12)


def _maps(encoder, images):
    images = statistics_of(encoder).normalize(tf.cast(images, tf.float32))
    return encoder(images, training=False)


def _in_batches(function, images):
    starts = range(0, len(images), _BATCH)
    return np.concatenate([function(images[i : i + _BATCH]) for i in starts])
