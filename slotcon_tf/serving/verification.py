"""Whether what was written answers as the model that is in memory."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.errors import first_line

_UNLIKE = 0.01  # share of whole numbers that may differ: ties, to rounding
_EXACT = ("ok", "reason")
_GOOD = 3  # of the files that are sent; the last one is no image
# Lines of TensorFlow's errors that say where, and not what.
_WHERE = re.compile(
    r"Graph execution error|Detected at|\s*File |<|\d+ (root|successful|derived)|"
    r"Errors may|Original|Input |\s*$"
)


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
    one_by_one: bool = False,
) -> dict[str, float]:
    """Loads a version in a session, as TF Serving does, and asks it everything.

    Noise as pixels; as files, noise and plain areas of two formats, and one that is no
    image.

    Args:
        folder: Of the version.
        functions: In memory, of every signature.
        edge: Of the images, pixels.
        tolerance: As of `near`.
        one_by_one: Whether the version takes a file at a time.

    Returns:
        Dict of signature to its largest distance.

    Raises:
        NotTheSame: If an output is further away, or missing, or cannot be computed; it
            names the signature, the output and the distance. Also if images that are
            good are not `ok`: rows of zeros are equal whatever the model is.

    Example:
        >>> import tempfile
        >>> folder, spec = tempfile.mkdtemp(), tf.TensorSpec([None], tf.string, "files")
        >>> length = tf.function(lambda files: {"n": tf.strings.length(files)}, [spec])
        >>> tf.saved_model.save(tf.Module(), folder, length)
        >>> verify(folder, {"serving_default": length}, edge=32)
        {'serving_default': 0.0}
    """
    images, files = noise_pixels(edge), _files(edge)
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
            of_files = source.dtype == tf.string.as_datatype_enum
            value = files if of_files else images
            parts = np.split(value, len(value)) if of_files and one_by_one else [value]
            try:
                found = [session.run(outputs, {source.name: part}) for part in parts]
                truth = [function(tf.constant(part)) for part in parts]
            except tf.errors.OpError as error:
                raise NotTheSame(
                    f"What was written must answer {name}. Received: {_what(error)}"
                ) from error
            pairs = zip(found, truth, strict=True)
            distances[name] = max(near(name, *pair, tolerance) for pair in pairs)
            if of_files and "ok" in truth[0]:
                _check_good(name, np.concatenate([part["ok"] for part in truth]))
    return distances


def _check_good(name: str, ok: np.ndarray) -> None:
    if not ok[:_GOOD].all():
        raise NotTheSame(
            f"{name} must read the images that it is verified by. Received: ok "
            f"{ok.tolist()}, of {_GOOD} images and a file that is none. Is "
            "`max_pixels` below theirs?"
        )


def _what(error: Exception) -> str:
    """The line of an error of TensorFlow's that says what went wrong."""
    lines = [line.split("[[")[0].strip() for line in str(error).splitlines()]
    lines = [line for line in lines if not _WHERE.match(line)]
    return lines[-1] if lines else first_line(error)


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


def near(
    name: str,
    found: Mapping[str, Any],
    truth: Mapping[str, Any],
    tolerance: float = 1e-3,
) -> float:
    """The largest distance of an answer from what it should be.

    Args:
        name: Of the signature, or of what has answered.
        found, truth: Dict of output to array.
        tolerance: Of floats, the distance in norm as share of the norm. Of whole
            numbers one in a hundred may differ, of `mask` and `valid` one in a hundred
            of those that are true; none of `ok` and `reason`.

    Raises:
        NotTheSame: If an output is further away, or missing.

    Example:
        >>> near("embed", {"ok": np.array([True])}, {"ok": np.array([True])})
        0.0
        >>> near("embed", {"ok": np.array([True])}, {"ok": np.array([False])})
        Traceback (most recent call last):
        slotcon_tf.serving.verification.NotTheSame: embed's ok must be within 0 of the \
model in memory's. Received: 1. The version is not written; export it anew.
    """
    if set(found) != set(truth):
        raise NotTheSame(
            f"What was written must give {sorted(truth)} for {name}. Received: "
            f"{sorted(found)}."
        )
    largest = 0.0
    for key, expected in sorted(truth.items()):
        value, expected = np.asarray(found[key]), np.asarray(expected)  # noqa: PLW2901
        if value.shape != expected.shape:
            raise NotTheSame(
                f"{name}'s {key} must have the shape {expected.shape} of the model in "
                f"memory. Received: {value.shape}."
            )
        floating = np.issubdtype(expected.dtype, np.floating)
        limit = 0.0 if key in _EXACT else tolerance if floating else _UNLIKE
        far = _distance(value, expected) if floating else _unlike(value, expected)
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


def _unlike(found: np.ndarray, truth: np.ndarray) -> float:
    """Share that differs: of whole numbers, of all; of bools, of the true."""
    of_all = truth.size if truth.dtype != bool else int(np.sum(found | truth))
    return float(np.sum(found != truth)) / max(of_all, 1)


def noise_pixels(edge: int) -> np.ndarray:
    """Two images that a model has something to say to.

    Args:
        edge: Of the images, pixels.

    Returns:
        uint8 (2, edge, edge, 3).

    Example:
        >>> noise_pixels(32).shape
        (2, 32, 32, 3)
    """
    dice = np.random.default_rng(0)
    return dice.integers(0, 256, (2, edge, edge, 3), dtype=np.uint8)


def _files(edge):
    noise, other = noise_pixels(edge)
    plain = np.full((edge, 2 * edge, 3), 60, np.uint8)
    plain[: edge // 2, :edge] = 200
    files = [tf.io.encode_jpeg(noise), tf.io.encode_png(other), tf.io.encode_png(plain)]
    return np.array([*(file.numpy() for file in files), b"no image"], object)
