"""Models of .keras files, each looked through before Keras builds anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import Any

import keras

from slotcon_tf.interop import hdf5_look
from slotcon_tf.interop.allowance import allowed_bytes, variables_within
from slotcon_tf.interop.entries import check_values
from slotcon_tf.interop.pickles import CheckpointFileError
from slotcon_tf.interop.reasons import refusal

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MOST_CONFIG = 1 << 22  # bytes; a ResNet-152's graph has 0.8 MB
_MOST_DEPTH = 100  # of JSON in JSON; a model in a model in a model has 40
_CHUNK = 1 << 20
_MOST_SECONDS = 120


def load_keras(path: str | os.PathLike) -> keras.Model:
    """The model of a .keras file, without its optimizer.

    Nothing that a file holds is run, and no more memory taken than a few times its
    size: its checksums, the sizes that it claims, those of the model that it describes,
    and every number are looked at.

    Args:
        path: pathlib.Path of the file.

    Returns:
        A keras.Model.

    Raises:
        CheckpointFileError: If the file is damaged or hostile, asks for more than it
            holds, or has weights that are not finite.

    Example:
        >>> from slotcon_tf import backbone
        >>> backbone("resnet10", width=8).save("encoder.keras")
        >>> load_keras("encoder.keras").width
        8
    """
    try:
        held = _check_archive(path)
        arrays = _look_through(path, held)
        with variables_within(path, held, arrays):
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"a {type(model).__name__}, no keras.Model")
        for variable in model.variables:
            if keras.backend.is_float_dtype(variable.dtype):
                values: Any = keras.ops.convert_to_numpy(variable)
                check_values(variable.path, values)
    except CheckpointFileError as error:
        if str(path) in str(error):
            raise
        raise CheckpointFileError(f"{path}: {error}") from error
    # A configuration may ask for anything, and Keras has an error of any kind for it.
    except Exception as error:
        must = f"{path} must be a whole .keras file of this project."
        raise refusal(path, error, must) from error
    return model


def _check_archive(path):
    """Checks the zip file and its JSON; returns the bytes of the weights in it."""
    most = allowed_bytes(os.path.getsize(path))
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if len(sizes) != len(archive.infolist()) or not {_CONFIG, _WEIGHTS} <= {*sizes}:
            raise ValueError(f"a zip file without one {_CONFIG} and one {_WEIGHTS}")
        if sizes[_CONFIG] > _MOST_CONFIG or sum(sizes.values()) > most:
            raise ValueError(
                f"a zip file that unpacks to {sum(sizes.values()):,} bytes, "
                f"{sizes[_CONFIG]:,} of them configuration"
            )
        for name in sizes:
            with archive.open(name) as member:  # checks the sum at the end
                while member.read(_CHUNK):
                    pass
        try:
            config = json.loads(archive.read(_CONFIG))
        except RecursionError as error:
            raise ValueError(f"a {_CONFIG} nested without end") from error
    if not isinstance(config, dict) or _depth(config) > _MOST_DEPTH:
        raise ValueError(f"a {_CONFIG} that is no object, or nested too deeply")
    return sizes[_WEIGHTS]


def _depth(value):
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth


def _look_through(path, held):
    """Has the weights read by a process of its own; returns how many arrays there are.

    HDF5 may end, or never end, on a damaged file, and nothing can catch that.
    """
    command = [sys.executable, hdf5_look.__file__, str(path), _WEIGHTS]
    try:
        done = subprocess.run(
            [*command, str(allowed_bytes(held))],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",
            },
            capture_output=True,
            timeout=_MOST_SECONDS + held / 10**7,
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"a {_WEIGHTS} whose reading does not end") from error
    except ValueError as error:
        raise ValueError(
            f"a {_WEIGHTS} that ended HDF5's reader (status {done.returncode})"
        ) from error
    if "refused" in found:
        raise ValueError(f"{_WEIGHTS}: {found['refused']}")
    return found["arrays"]
