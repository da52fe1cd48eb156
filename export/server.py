"""A local model server for development and tests.

    python -m export.server --export_dir=served/slotcon

Answers TF Serving's gRPC calls (Predict, GetModelMetadata, GetModelStatus) on the
SavedModels of a folder, and loads a new version while it serves. Production runs TF
Serving itself: it batches requests, serves REST, and is written in C++.

Differs from TF Serving: it listens before there is a version, and says NOT_FOUND;
answers hold numbers as bytes (`tensor_content`), which tf.make_ndarray reads as well;
labels are set on the command line only; a damaged version is not tried again before its
files change, and the newest sound one is served, also after a start.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import tensorflow as tf
from absl import logging
from google.protobuf import any_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from slotcon_tf.runs.command import Command
from slotcon_tf.runs.export import EXPORT_DIR
from slotcon_tf.runs.settings import Config, SettingError, setting

from .server_tensors import output_names, read_inputs, write_tensor
from .server_versions import InvalidRequest, NotServed, Versions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig(Config):
    """What is served, and where.

    Example:
        >>> ServerConfig(export_dir="served/slotcon").port
        8500
    """

    export_dir: str = setting(None, EXPORT_DIR, aliases=("model_dir",))
    model_name: str = setting("slotcon", "As served.")
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8500, "Port; 0: a free one.", low=0, high=65535)
    threads: int = setting(8, "Requests at once.", low=1)
    max_message_mb: int = setting(64, "Largest message.", low=1)
    poll_seconds: float = setting(1.0, "Between looks at the folder.", low=0.01)
    keep_versions: int = setting(1, "Newest versions to serve.", low=1)
    version_labels: tuple[str, ...] = setting((), "Such as stable:1,canary:2.")


_GRACE = 30.0  # seconds for requests under way when the server stops
_DEFAULT = "serving_default"
# TensorFlow's codes are gRPC's.
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_TEXT = 1000  # characters of an error; gRPC puts it into a header


def _answering(method: Callable) -> Callable:
    """Turns errors into the status that TF Serving gives them."""

    def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return method(self, request)
        except NotServed as error:
            code, text = grpc.StatusCode.NOT_FOUND, str(error)
        except InvalidRequest as error:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except tf.errors.OpError as error:
            code, text = _CODES[error.error_code], str(error.message)
        except Exception as error:
            logging.exception("%s failed", method.__name__)
            code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        context.abort(code, text[:_LONGEST_TEXT])

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the other calls are not implemented.

    Args:
        versions: `Versions`.
        max_bytes: Largest tensor of a request.
    """

    def __init__(self, versions: Versions, max_bytes: int) -> None:
        self.versions = versions
        self.max_bytes = max_bytes

    @_answering
    def Predict(self, request: Any) -> Any:  # noqa: N802  gRPC's name
        version = self.versions.get(request.model_spec)
        name = request.model_spec.signature_name or _DEFAULT
        if name not in version.signatures:
            raise InvalidRequest(
                f'Serving signature name: "{name}" not found in signature def. There '
                f"are {sorted(version.signatures)}."
            )
        definition = version.definitions[name]
        inputs = read_inputs(request.inputs, definition, self.max_bytes)
        wanted = output_names(request.output_filter, definition)
        outputs = version.signatures[name](**inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self.versions.name
        response.model_spec.version.value = version.number
        response.model_spec.signature_name = name
        for key in wanted:
            write_tensor(outputs[key], response.outputs[key])
        return response

    @_answering
    def GetModelMetadata(self, request: Any) -> Any:  # noqa: N802
        fields = list(request.metadata_field)
        if set(fields) != {"signature_def"}:
            raise InvalidRequest(
                f"metadata_field must be signature_def. Received: {fields}."
            )
        version = self.versions.get(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in version.definitions.items():
            signatures.signature_def[name].CopyFrom(definition)
        packed = any_pb2.Any()
        packed.Pack(signatures)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.versions.name
        response.model_spec.version.value = version.number
        response.metadata["signature_def"].CopyFrom(packed)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus.

    HandleReloadConfigRequest is not implemented: labels are set on the command line.

    Args:
        versions: `Versions`.
    """

    def __init__(self, versions: Versions) -> None:
        self.versions = versions

    @_answering
    def GetModelStatus(self, request: Any) -> Any:  # noqa: N802
        spec = request.model_spec
        if not request.HasField("model_spec"):
            raise InvalidRequest("The request must have a ModelSpec. Received: none.")
        states = self.versions.states() if spec.name == self.versions.name else {}
        looked_for = "any versions"
        # A label is not looked at, as in TF Serving.
        if spec.HasField("version"):
            looked_for = f"version {spec.version.value}"
            states = {k: v for k, v in states.items() if k == spec.version.value}
        if not states:
            raise NotServed(f"Could not find {looked_for} of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, (state, text) in sorted(states.items(), reverse=True):
            status = response.model_version_status.add(version=number, state=state)
            if text:
                status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
                status.status.error_message = text
        return response


def start(
    versions: Versions, *, host: str, port: int, threads: int, max_message_mb: int
) -> tuple[grpc.Server, int]:
    """Starts to listen.

    Args:
        versions: What is served.
        host: Address to listen on.
        port: 0 for a free one.
        threads: Requests at once.
        max_message_mb: Largest request.

    Returns:
        Tuple of the grpc server and its port.

    Raises:
        OSError: If the port is taken.
    """
    limit = max_message_mb * 2**20
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(threads),
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(versions, limit), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(versions), server
    )
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:  # so newer versions of grpc
        bound = 0
    if not bound:
        raise OSError(
            f"`port` must be free on {host}. Received: port={port}, which is taken. "
            "Take another one; 0 is any free one."
        )
    server.start()
    return server, bound


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        config: What is served, and where.

    Raises:
        SettingError: If labels cannot be read.
        OSError: If there is no folder, or the port is taken.
    """
    labels = _labels(config.version_labels)
    if not os.path.isdir(config.export_dir):
        raise FileNotFoundError(
            "`export_dir` must be a folder, of versions that export.saved_model wrote. "
            f"Received: export_dir={config.export_dir}, which is none. Check the path."
        )
    stopped = threading.Event()
    # Before the line that says it serves: who reads that may end it at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    versions = Versions(
        config.export_dir, config.model_name, labels, config.keep_versions
    )
    versions.poll()
    server, port = start(
        versions,
        host=config.host,
        port=config.port,
        threads=config.threads,
        max_message_mb=config.max_message_mb,
    )
    if not versions.numbers():
        logging.warning("No version in %s yet; it is looked for.", config.export_dir)
    print(
        f"Serving {config.model_name} version(s) {versions.numbers()} on "
        f"{config.host}:{port}",
        flush=True,
    )
    while not stopped.wait(config.poll_seconds):
        versions.poll()
    server.stop(_GRACE).wait()


def _labels(words: Sequence[str]) -> dict[str, int]:
    pairs = [word.partition(":") for word in words]
    if not all(name and number.isdecimal() for name, _, number in pairs):
        raise SettingError(
            "`version_labels` must be such as stable:1,canary:2. "
            f"Received: version_labels={','.join(words)}."
        )
    return {name: int(number) for name, _, number in pairs}


main = Command("server", ServerConfig, serve, __doc__)

if __name__ == "__main__":
    main()
