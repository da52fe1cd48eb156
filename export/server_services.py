"""gRPC services of the local server, in TensorFlow Serving's messages."""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from .server_answers import Answers
from .server_errors import Refused, invalid, refusal
from .server_metrics import Metrics
from .server_tls import Certificates
from .server_wire import check_small, read_predict, without_examples

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_LONGEST_TEXT = 1000  # characters of an error; gRPC puts it into a header
_QUICK_THREADS = 2
_SILENT_MS = 60_000  # after which a client's machine is asked whether it is there


class GrpcServer:
    """A started server, and what it tells of its health.

    Args:
        answers: The calls.
        metrics: Where they are counted.
        pool: Threads that answer.
        address: "host:port"; port 0 for a free one.
        certificates: For TLS; None without.

    Attributes:
        port: On which it listens.

    Raises:
        OSError: If the port is taken.

    Example:
        >>> import tempfile
        >>> from export.server_tensors import Limits
        >>> from export.server_versions import Versions
        >>> versions = Versions(tempfile.mkdtemp(), "slotcon")
        >>> pool = concurrent.futures.ThreadPoolExecutor(1)
        >>> answers, metrics = Answers(versions, Limits()), Metrics(versions)
        >>> server = GrpcServer(answers, metrics, pool, "127.0.0.1:0")
        >>> server.port > 0, server.stop(0)
        (True, True)
    """

    def __init__(
        self,
        answers: Answers,
        metrics: Metrics,
        pool: concurrent.futures.ThreadPoolExecutor,
        address: str,
        certificates: Certificates | None = None,
    ) -> None:
        self._answers = answers
        self._metrics = metrics
        limit = answers.limits.max_bytes
        self._server = grpc.server(
            pool,
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", _SILENT_MS),
            ],
        )
        # What computes nothing has threads of its own: it is told while all others
        # are busy.
        self._quick = concurrent.futures.ThreadPoolExecutor(_QUICK_THREADS)
        self._server.add_generic_rpc_handlers(self._services())
        self._health = health.HealthServicer()
        self._health.Check = self._quickly(self._health.Check)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._serves = None
        self.tell_health()
        try:
            if certificates:
                credentials = certificates.credentials()
                bound = self._server.add_secure_port(address, credentials)
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError:  # so newer versions of grpc
            bound = 0
        if not bound:
            host, _, port = address.rpartition(":")
            raise OSError(
                f"`port` must be free on {host}. Received: port={port}, which is "
                "taken. Take another one; 0 is any free one."
            )
        self.port = bound
        self._server.start()

    def tell_health(self) -> None:
        """SERVING if a version is loaded; to be called after each look for versions."""
        serves = bool(self._answers.versions.numbers())
        if serves == self._serves:
            return
        self._serves = serves
        state = health_pb2.HealthCheckResponse
        for name in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            self._health.set(name, state.SERVING if serves else state.NOT_SERVING)

    def stop(self, seconds: float) -> bool:
        """Takes no more requests, and waits for those under way.

        Args:
            seconds: After which they are given up.

        Returns:
            Whether all have ended.
        """
        self._health.enter_graceful_shutdown()
        return self._server.stop(seconds).wait(seconds + 0.5)

    def _services(self) -> list[grpc.GenericRpcHandler]:
        answers, limit = self._answers, self._answers.limits.max_bytes

        def examples(message: type) -> Callable[[bytes], Any]:
            return lambda data: message.FromString(without_examples(data))

        def small(message: type) -> Callable[[bytes], Any]:
            return lambda data: message.FromString(check_small(data))

        metadata = get_model_metadata_pb2.GetModelMetadataRequest
        status = get_model_status_pb2.GetModelStatusRequest
        services = {
            PREDICTION_SERVICE: {
                "Predict": (lambda data: read_predict(data, limit), answers.predict),
                "Classify": (
                    examples(classification_pb2.ClassificationRequest),
                    answers.classify,
                ),
                "Regress": (
                    examples(regression_pb2.RegressionRequest),
                    answers.regress,
                ),
                "MultiInference": (
                    examples(inference_pb2.MultiInferenceRequest),
                    answers.multi_inference,
                ),
                "GetModelMetadata": (small(metadata), answers.metadata),
            },
            MODEL_SERVICE: {
                "GetModelStatus": (small(status), answers.status),
                "HandleReloadConfigRequest": (
                    small(model_management_pb2.ReloadConfigRequest),
                    answers.reload,
                ),
            },
        }
        return [
            grpc.method_handlers_generic_handler(
                service,
                {name: self._handler(name, *both) for name, both in calls.items()},
            )
            for service, calls in services.items()
        ]

    def _handler(
        self, name: str, read: Callable[[bytes], Any], call: Callable
    ) -> grpc.RpcMethodHandler:
        """Of bytes: they are looked at before a parser makes objects of them."""

        def behaviour(data: bytes, context: grpc.ServicerContext) -> bytes | None:
            with self._metrics.call(name, "GRPC") as done:
                try:
                    seconds = context.time_remaining()
                    if not context.is_active() or seconds is not None and seconds <= 0:
                        raise Refused("DEADLINE_EXCEEDED", "Nobody waits any longer.")
                    request = _read(read, data)
                    timed = {"seconds": seconds} if name == "Predict" else {}
                    return call(request, **timed).SerializeToString()
                except Exception as error:
                    refused = refusal(error, name)
                    done(refused.code)
            code = grpc.StatusCode[refused.code]
            return context.abort(code, str(refused)[:_LONGEST_TEXT])

        if name != "Predict":
            behaviour = self._quickly(behaviour)
        return grpc.unary_unary_rpc_method_handler(behaviour)

    def _quickly(self, call: Callable) -> Callable:
        """The call, marked as gRPC wants what is not to wait for the other threads."""

        def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
            return call(request, context)

        behaviour.experimental_thread_pool = self._quick
        return behaviour


def _read(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except Refused:
        raise
    except Exception:  # a parser's
        raise invalid("The message must be one of TF Serving's calls.") from None
