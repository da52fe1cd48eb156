"""gRPC services of the local server, in TensorFlow Serving's messages."""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
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

from .server_tensors import output_names, read_inputs, write_tensor
from .server_versions import InvalidRequest, NotServed, Versions

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

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> numbers = tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), f"{folder}/1", half)
        >>> versions = Versions(folder, "slotcon")
        >>> versions.poll()
        >>> request = predict_pb2.PredictRequest(model_spec={"name": "slotcon"})
        >>> request.inputs["x"].CopyFrom(tf.make_tensor_proto([3.0]))
        >>> answer = PredictionService(versions, max_bytes=2**20).Predict(request, None)
        >>> tf.make_ndarray(answer.outputs["y"]).tolist()
        [1.5]
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

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> numbers = tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), f"{folder}/1", half)
        >>> versions = Versions(folder, "slotcon")
        >>> versions.poll()
        >>> asked = {"model_spec": {"name": "slotcon"}}
        >>> request = get_model_status_pb2.GetModelStatusRequest(**asked)
        >>> answer = ModelService(versions).GetModelStatus(request, None)
        >>> [status.version for status in answer.model_version_status]
        [1]
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

    Example:
        >>> import tempfile
        >>> versions = Versions(tempfile.mkdtemp(), "slotcon")
        >>> options = {"host": "127.0.0.1", "threads": 1, "max_message_mb": 1}
        >>> server, port = start(versions, port=0, **options)
        >>> port > 0, server.stop(None).wait(10)
        (True, True)
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
