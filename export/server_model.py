"""A loaded SavedModel: a session, as TF Serving has one, and its warm-up requests."""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from slotcon_tf.serving.warmup import WARMUP_FILE

from .server_errors import Refused, invalid
from .server_tensors import UNLIMITED, Limits, output_names, read_inputs

DEFAULT_SIGNATURE = "serving_default"
_INNER = "__saved_model"  # signatures of the loader's
_MOST_WARMUPS = 1000  # TF Serving's own


class Version:
    """One loaded SavedModel.

    Args:
        path: pathlib.Path of its folder.
        warmup: Whether its warm-up requests are answered first.

    Attributes:
        number: Its version.
        definitions: Dict of signature to SignatureDef.

    Raises:
        Exception: Whatever TensorFlow raises of a damaged one.
        Refused: If a warm-up request fails, as in TF Serving.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "1"
        >>> numbers = tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), str(folder), half)
        >>> Version(folder).run("serving_default", {"x": np.float32([3])}, ["y"])
        {'y': array([1.5], dtype=float32)}
    """

    def __init__(self, path: pathlib.Path, warmup: bool = True) -> None:
        self.number = int(path.name)
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph)
        with self._graph.as_default(), _no_advice():
            saved = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        self._graph.finalize()
        self.definitions = dict(saved.signature_def)
        for request in warmup_requests(path / WARMUP_FILE) if warmup else ():
            answer(self, request, UNLIMITED)

    def definition(self, name: str) -> Any:
        """The SignatureDef of a signature.

        Raises:
            Refused: If there is none.
        """
        if name not in self.definitions or name.startswith(_INNER):
            raise Refused(
                "FAILED_PRECONDITION",
                f'Serving signature key "{name}" not found. There are {self.known()}.',
            )
        return self.definitions[name]

    def known(self) -> str:
        """Names of the signatures, for messages."""
        names = (name for name in self.definitions if not name.startswith(_INNER))
        return ", ".join(sorted(names))

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes a signature's outputs; those of a choice cost what all of them do.

        Args:
            signature: Its name.
            inputs: Dict of name to array, as the signature has them.
            outputs: Names.
            seconds: After which it is given up.

        Raises:
            tf.errors.OpError: If the model refuses them.
        """
        definition = self.definitions[signature]
        fetches = {name: definition.outputs[name].name for name in outputs}
        feeds = {definition.inputs[name].name: inputs[name] for name in inputs}
        options = None
        if seconds is not None:
            most = 2**31 - 1
            options = tf.compat.v1.RunOptions(
                timeout_in_ms=min(max(1, int(1000 * seconds)), most)
            )
        found = self._session.run(fetches, feeds, options=options)
        # Of a single string, a session gives the string.
        return {
            name: np.array(value, object)
            if isinstance(value, bytes)
            else np.asarray(value)
            for name, value in found.items()
        }


def answer(
    version: Version, request: Any, limits: Limits, seconds: float | None = None
) -> dict[str, np.ndarray]:
    """The outputs that a PredictRequest asks a version for.

    Raises:
        Refused: If it cannot be answered, with TF Serving's code and words.

    Example:
        >>> from tensorflow_serving.apis import predict_pb2
        >>> version = object.__new__(Version)
        >>> version.definitions = {}
        >>> request = predict_pb2.PredictRequest()
        >>> answer(version, request, Limits())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        export.server_errors.Refused: Serving signature key "serving_default" not ...
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    definition = version.definition(name)
    inputs = read_inputs(request.inputs, definition, limits)
    outputs = output_names(request.output_filter, definition)
    return version.run(name, inputs, outputs, seconds)


def warmup_requests(path: pathlib.Path) -> Iterator[Any]:
    """The requests that a version has recorded, as PredictRequest.

    Args:
        path: Of its file of them; without one there are none.

    Raises:
        Refused: If it holds something else, or too many.

    Example:
        >>> list(warmup_requests(pathlib.Path("none/1") / WARMUP_FILE))
        []
    """
    if not path.exists():
        return
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    for count, record in enumerate(records):
        if count == _MOST_WARMUPS:
            raise invalid(f"Number of warmup records exceeds the maximum ({count})")
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            raise Refused("UNIMPLEMENTED", "Warm-up requests must be of Predict.")
        yield log.predict_log.request


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Not told at each start that sessions are old: they are what TF Serving has."""
    told = tf.get_logger()
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.setLevel(level)
