"""Whether what was written answers as the model that is in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.errors import first_line

_UNLIKE = 0.01  # share of whole numbers that may differ: ties, to rounding


class NotTheSame(ValueError):
    """A written version answers otherwise than the model in memory.

    Example:
        >>> issubclass(NotTheSame, ValueError)
        True
    """


def verify(
    folder: str | os.PathLike[str],
    functions: Mapping[str, Callable[[tf.Tensor], Mapping[str, tf.Tensor]]],
    edge: int,
    tolerance: float = 1e-3,
) -> dict[str, float]:
    """Loads a version in a session, as TF Serving does, and asks it everything.

    Noise as pixels; as files, noise and plain areas of two formats, and one that is no
    image.

    Args:
        folder: Of the version.
        functions: In memory, of every signature.
        edge: Of the images, pixels.
        tolerance: Of floats, the distance in norm as share of the norm; of whole
            numbers one in a hundred may differ.

    Returns:
        Dict of signature to its largest distance.

    Raises:
        NotTheSame: If an output is further away, or missing, or cannot be computed; it
            names the signature, the output and the distance.

    Example:
        >>> import tempfile
        >>> folder, spec = tempfile.mkdtemp(), tf.TensorSpec([None], tf.string, "files")
        >>> length = tf.function(lambda files: {"n": tf.strings.length(files)}, [spec])
        >>> tf.saved_model.save(tf.Module(), folder, length)
        >>> verify(folder, {"serving_default": length}, edge=32)
        {'serving_default': 0.0}
    """
    images, files = _pixels(edge), _files(edge)
    distances = {}
    # Not the session itself, within which nothing else would run.
    with contextlib.closing(tf.compat.v1.Session(graph=tf.Graph())) as session:
        definitions = _loaded(session, folder)
        for name, function in functions.items():
            if name not in definitions:
                raise NotTheSame(
                    f"What was written must have the signature {name}. Received: none."
                )
            ((source,), outputs) = definitions[name]
            value = files if source.dtype == tf.string.as_datatype_enum else images
            try:
                found = session.run(outputs, {source.name: value})
            except tf.errors.OpError as error:
                raise NotTheSame(
                    f"What was written must answer {name}. Received: "
                    f"{first_line(error)}"
                ) from error
            truth = function(tf.constant(value))
            truth = {key: np.asarray(value) for key, value in truth.items()}
            distances[name] = _largest(name, found, truth, tolerance)
    return distances


def _loaded(session: Any, folder: Any) -> dict[str, tuple[list, dict[str, str]]]:
    """Dict of signature to its inputs and the names of its outputs in the graph."""
    loader = tf.compat.v1.saved_model.loader
    try:
        with session.graph.as_default():
            meta = loader.load(session, ["serve"], str(folder))
    except (tf.errors.OpError, OSError, ValueError, RuntimeError) as error:
        raise NotTheSame(
            "What was written must load in a session, as TF Serving loads it. "
            f"Received: {first_line(error)}"
        ) from error
    return {
        name: (
            list(each.inputs.values()),
            {key: info.name for key, info in each.outputs.items()},
        )
        for name, each in meta.signature_def.items()
    }


def _largest(name: str, found: Any, truth: Any, tolerance: float) -> float:
    if set(found) != set(truth):
        raise NotTheSame(
            f"What was written must give {sorted(truth)} for {name}. Received: "
            f"{sorted(found)}."
        )
    largest = 0.0
    for key, expected in sorted(truth.items()):
        value = np.asarray(found[key])
        if value.shape != expected.shape:
            raise NotTheSame(
                f"{name}'s {key} must have the shape {expected.shape} of the model in "
                f"memory. Received: {value.shape}."
            )
        floating = np.issubdtype(expected.dtype, np.floating)
        limit = tolerance if floating else _UNLIKE
        far = _distance(value, expected) if floating else np.mean(value != expected)
        if not far <= limit:
            raise NotTheSame(
                f"{name}'s {key} must be within {limit:g} of the model in memory's. "
                f"Received: {far:.3g}. The version is not written; export it anew."
            )
        largest = max(largest, float(far))
    return largest


def _distance(found: np.ndarray, truth: np.ndarray) -> float:
    """Of floats: in norm, as share of the norm."""
    found, truth = (np.asarray(x, np.float64) for x in (found, truth))
    return float(np.linalg.norm(found - truth) / max(np.linalg.norm(truth), 1e-12))


def _pixels(edge):
    dice = np.random.default_rng(0)
    return dice.integers(0, 256, (2, edge, edge, 3), dtype=np.uint8)


def _files(edge):
    noise, other = _pixels(edge)
    plain = np.full((edge, 2 * edge, 3), 60, np.uint8)
    plain[: edge // 2, :edge] = 200
    files = [tf.io.encode_jpeg(noise), tf.io.encode_png(other), tf.io.encode_png(plain)]
    return np.array([*(file.numpy() for file in files), b"no image"], object)
