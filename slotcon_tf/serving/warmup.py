"""Requests that TF Serving answers to itself before it takes others."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.extras import MissingExtra, needed

BATCH_SIZES = (1, 8, 32)  # as in export/serving/batching.config
# Where TF Serving looks, in the folder of a version.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup(
    folder: pathlib.Path,
    model_name: str,
    signatures: dict[str, tuple],
    batch_sizes: Iterable[int],
    edge: int,
) -> bool:
    """Writes a request for every signature and batch size.

    Args:
        folder: Of the version.
        model_name: As it will be served.
        signatures: Of `ServedModel.signatures`.
        batch_sizes: Images per request; those that the server's batching allows.
        edge: Of the images in pixels.

    Returns:
        Whether it could: the requests' format is that of tensorflow-serving-api, and
        without that package a warning says that there are none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = write_warmup(pathlib.Path(folder), "slotcon", {}, (1,), 32)
        ...     print(written == (pathlib.Path(folder) / WARMUP_FILE).exists())
        True
    """
    try:
        with needed("serving"):
            from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except MissingExtra as error:
        logging.warning(
            "No warm-up requests are written: the first requests to a server will be "
            "slow. %s",
            error,
        )
        return False
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for name, (_, (spec,)) in signatures.items():
            for size in batch_sizes:
                request = predict_pb2.PredictRequest()  # pyright: ignore[reportAttributeAccessIssue]
                request.model_spec.name = model_name
                request.model_spec.signature_name = name
                images = _images(spec.dtype, size, edge)
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(images))
                log = prediction_log_pb2.PredictionLog()  # pyright: ignore[reportAttributeAccessIssue]
                log.predict_log.request.CopyFrom(request)
                file.write(log.SerializeToString())
    return True


def _images(dtype, count, edge):
    """Noise: uint8 (count, edge, edge, 3), or as many files."""
    dice = np.random.default_rng(0)
    pixels = dice.integers(0, 256, (count, edge, edge, 3), dtype=np.uint8)
    if dtype == tf.string:
        return [tf.io.encode_jpeg(image).numpy() for image in pixels]
    return pixels
