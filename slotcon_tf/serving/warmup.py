"""Requests that a server answers to itself before it takes others.

TF Serving runs a graph for each set of outputs that is asked for, and makes it ready at
the first such request; then the kernels get ready for each number of images. So a
warm-up helps those requests only that it is like: the records here are what the client
sends (`output_filters`), for each batch size that it may send.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.extras import MissingExtra, needed

BATCH_SIZES = (1, 8, 32)  # as in export/serving/batching.config
# Where TF Serving looks, in the folder of a version.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_STATUS = ("ok", "reason")
# What the client asks for unless it is told otherwise; REST asks for all there is.
OF_OBJECTS = ("vector", "prototype", "area", "box", "score", "valid")  # no masks
_ASKED = {"image_bytes": ("pooled",), "embed": ("pooled",), "instances": OF_OBJECTS}


def output_filters(name: str, outputs: Iterable[str]) -> list[tuple[str, ...]]:
    """The sets of outputs that the client asks a signature for.

    Args:
        name: Of the signature.
        outputs: All that it has.

    Returns:
        List of output filters, as a request has them: () is all.

    Example:
        >>> output_filters("embed", ["pooled", "ok", "reason"])
        [(), ('pooled', 'ok', 'reason')]
        >>> output_filters("objects", ["vector", "ok", "reason"])
        [()]
    """
    known = set(outputs)
    asked = (*_ASKED.get(name, ()), *_STATUS)
    # All that there is, asked for by name, is the same to a server as not asked for.
    return [(), asked] if name in _ASKED and set(asked) <= known else [()]


def write_warmup(
    folder: pathlib.Path,
    model_name: str,
    signatures: dict[str, tuple],
    batch_sizes: Iterable[int],
    edge: int,
) -> bool:
    """Writes the client's requests: each signature of files, outputs and batch size.

    Of the signatures of pixels, whose images may have any size, one of one image.

    Args:
        folder: Of the version, which holds its SavedModel already.
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
    known = outputs_of(folder) if signatures else {}
    jpeg = _photo(edge)
    with tf.io.TFRecordWriter(str(path)) as file:
        for name, (_, (spec,)) in signatures.items():
            files = spec.dtype == tf.string
            filters = output_filters(name, known[name]) if files else [()]
            for size in sorted({*batch_sizes}) if files else [1]:
                request = predict_pb2.PredictRequest()  # pyright: ignore[reportAttributeAccessIssue]
                request.model_spec.name = model_name
                request.model_spec.signature_name = name
                # Pixels of one value: the shape, and one byte.
                proto = (
                    tf.make_tensor_proto([jpeg] * size, tf.string)
                    if files
                    else tf.make_tensor_proto(127, tf.uint8, [1, edge, edge, 3])
                )
                request.inputs[spec.name].CopyFrom(proto)
                for asked in filters:
                    request.output_filter[:] = asked
                    log = prediction_log_pb2.PredictionLog()  # pyright: ignore[reportAttributeAccessIssue]
                    log.predict_log.request.CopyFrom(request)
                    file.write(log.SerializeToString())
    return True


def signature_definitions(folder: pathlib.Path) -> Mapping[str, Any]:
    """The SignatureDefs of a version's SavedModel, by name; TensorFlow's own left out.

    Args:
        folder: Of the version.

    Raises:
        OSError: If there is no SavedModel.

    Example:
        >>> import tempfile
        >>> folder, numbers = tempfile.mkdtemp(), tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), folder, half)
        >>> list(signature_definitions(pathlib.Path(folder)))
        ['serving_default']
    """
    from tensorflow.core.protobuf import saved_model_pb2

    content = (folder / "saved_model.pb").read_bytes()
    saved = saved_model_pb2.SavedModel.FromString(content)  # pyright: ignore[reportAttributeAccessIssue]
    found = saved.meta_graphs[0].signature_def
    return {name: found[name] for name in sorted(found) if not name.startswith("__")}


def outputs_of(folder: pathlib.Path) -> dict[str, list[str]]:
    """Names of the outputs of each signature of a version.

    Example:
        >>> import tempfile
        >>> folder, numbers = tempfile.mkdtemp(), tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), folder, half)
        >>> outputs_of(pathlib.Path(folder))
        {'serving_default': ['y']}
    """
    definitions = signature_definitions(folder)
    return {name: sorted(each.outputs) for name, each in definitions.items()}


def _photo(edge):
    """A JPEG file of some kilobytes."""
    slope = np.linspace(0, 255, edge, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(slope, slope[:, None], 127), axis=-1)
    return tf.io.encode_jpeg(pixels.astype(np.uint8)).numpy()
