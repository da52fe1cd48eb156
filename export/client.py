"""Features of a folder of images from TF Serving.

    python -m export.client --server=localhost:8500 --images=photos --output=out.npz

Requests run side by side; a server that is away is asked again for --retry_minutes. An
interrupted extraction goes on when the same command is given again. Images that failed
are named; their rows are zeros. `FeatureClient` is the same for Python.
"""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import message

from slotcon_tf.extras import needed
from slotcon_tf.runs.command import Command, CommandError
from slotcon_tf.runs.settings import setting

from .extraction import ExtractionError, Images, RequestError, Unavailable, extract
from .extraction_settings import ExtractionSettings, listed_images, run
from .sending import ask

_RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts
_DEADLINES_MISSED = 3  # attempts before a batch is halved
_REST_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class FeatureClient:
    """Asks a served model for the features of image files.

    Safe to be used by several threads, and a context manager.

    Args:
        server: "host:port" of gRPC, or of REST.
        transport: "grpc" or "rest".
        model_name: As served.
        version: Number of a version, or None.
        version_label: Label of a version, or "".
        signature: One that takes `image_bytes`.
        outputs: Names of the outputs to fetch, () for all; `ok` and `reason` come
            along.
        deadline: Seconds for a request.
        retry_seconds: How long a server that is away is asked again.
        max_message_bytes: Largest answer.

    Example:
        >>> with FeatureClient("localhost:8500", outputs=["pooled", "map"]) as client:
        ...     client.outputs  # client.predict([photo_as_jpeg])["pooled"]
        ('pooled', 'map')
    """

    def __init__(
        self,
        server: str,
        *,
        transport: str = "grpc",
        model_name: str = "slotcon",
        version: int | None = None,
        version_label: str = "",
        signature: str = "image_bytes",
        outputs: Sequence[str] = ("pooled",),
        deadline: float = 30.0,
        retry_seconds: float = 300.0,
        max_message_bytes: int = 64 * 2**20,
    ) -> None:
        self.server = server
        self.model_name = model_name
        self.version = version
        self.version_label = version_label
        self.signature = signature
        self.outputs = tuple(outputs)
        self.deadline = deadline
        self.retry_seconds = retry_seconds
        self._channel = None
        self._call = self._rest if transport == "rest" else self._grpc
        if transport == "grpc":
            with needed("serving"):
                from tensorflow_serving.apis import prediction_service_pb2_grpc
            options = [("grpc.max_receive_message_length", max_message_bytes)]
            # Reconnects soon: the retries have pauses of their own.
            options.append(("grpc.max_reconnect_backoff_ms", 2000))
            self._channel = grpc.insecure_channel(server, options)
            self._stub = prediction_service_pb2_grpc.PredictionServiceStub(
                self._channel
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel:
            self._channel.close()

    def check(self) -> None:
        """Asks the server, over gRPC, whether it has the signature and outputs.

        Raises:
            ExtractionError: If it has not; it says what there is.
        """
        if self._channel is None:
            return
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest()
        self._specify(request.model_spec)
        request.metadata_field.append("signature_def")
        response = self._retried(
            lambda: self._stub.GetModelMetadata(request, timeout=self.deadline)
        )
        known = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(known)
        signature = known.signature_def.get(self.signature)
        takers = [
            name for name, s in known.signature_def.items() if "image_bytes" in s.inputs
        ]
        if signature is None or self.signature not in takers:
            raise ExtractionError(
                f"`signature` must be one that takes image_bytes: {sorted(takers)}. "
                f"Received: {self.signature!r}."
            )
        unknown = sorted(set(self.outputs) - set(signature.outputs))
        if unknown:
            raise ExtractionError(
                f"`outputs` must be of those of {self.signature}: "
                f"{sorted(signature.outputs)}. Received: {unknown}."
            )

    def predict(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Features of files, which are sent as `export.sending.ask` does.

        Args:
            content: List of files' bytes.

        Returns:
            Dict of arrays with as many rows: the outputs, `ok` bool and `reason`, an
            index of `slotcon_tf.serving.decoding.REASONS`.

        Raises:
            RequestError: If the server refuses the batch.
            Unavailable: If it has been away for `retry_seconds`.
            ExtractionError: If it knows no such model, version or signature.
        """
        found = ask(lambda files: self._retried(lambda: self._call(files)), content)
        wrong = [name for name, rows in found.items() if len(rows) != len(content)]
        if wrong:
            raise ExtractionError(
                f"The server must answer with a row per image. Received: other numbers "
                f"of {wrong}. Ask a signature of slotcon-export."
            )
        return found

    def extract(
        self, images: Images, output: str | os.PathLike, **options: Any
    ) -> dict[str, str]:
        """`export.extraction.extract` with this client; see there."""
        settings = {
            "model": self.model_name,
            "version": self.version or self.version_label,
            "signature": self.signature,
            "outputs": list(self.outputs),
        }
        return extract(self.predict, images, output, settings=settings, **options)

    def _specify(self, spec: Any) -> None:
        spec.name = self.model_name
        if self.version is not None:
            spec.version.value = self.version
        elif self.version_label:
            spec.version_label = self.version_label

    @property
    def _fetched(self) -> list[str]:
        """() for all."""
        if not self.outputs:
            return []
        return [*self.outputs, *(n for n in ("ok", "reason") if n not in self.outputs)]

    def _grpc(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._specify(request.model_spec)
        request.model_spec.signature_name = self.signature
        request.inputs["image_bytes"].CopyFrom(
            tf.make_tensor_proto(content, tf.string, [len(content)])
        )
        request.output_filter.extend(self._fetched)
        response = self._stub.Predict(request, timeout=self.deadline)
        return {name: tf.make_ndarray(t) for name, t in response.outputs.items()}

    def _rest(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        where = f"http://{self.server}/v1/models/{self.model_name}"
        if self.version is not None:
            where += f"/versions/{self.version}"
        elif self.version_label:
            where += f"/labels/{self.version_label}"
        files = [{"b64": base64.b64encode(data).decode()} for data in content]
        body = {"signature_name": self.signature, "inputs": {"image_bytes": files}}
        request = urllib.request.Request(
            f"{where}:predict",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.deadline) as answer:
                outputs = json.load(answer)["outputs"]
        except urllib.error.HTTPError as error:
            code = _REST_STATUS.get(error.code, grpc.StatusCode.UNKNOWN)
            raise _RestError(code, error.read(1000).decode(errors="replace")) from None
        except TimeoutError:
            raise _RestError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _RestError(grpc.StatusCode.UNAVAILABLE, str(error)) from None
        kinds = {"ok": bool, "reason": np.int32}
        return {
            name: _numbers(outputs[name], kinds.get(name))
            for name in self._fetched or outputs
            if name in outputs
        }

    def _retried(self, call: Callable[[], Any]) -> Any:
        end, pause, missed = time.monotonic() + self.retry_seconds, _FIRST_PAUSE, 0
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                code, text = error.code(), error.details()
            except message.DecodeError as error:
                raise ExtractionError(
                    f"{self.server} must answer as TF Serving does. Received: {error}."
                ) from error
            missed += code == grpc.StatusCode.DEADLINE_EXCEEDED
            if code in _REFUSED or missed >= _DEADLINES_MISSED:
                raise RequestError(f"{code.name}: {_short(text)}")
            if code not in _RETRIED:
                raise ExtractionError(
                    f"{self.server} must serve {self.model_name} with "
                    f"{self.signature}. Received: {code.name}, {_short(text)}."
                )
            if time.monotonic() > end:
                raise Unavailable(
                    f"{self.server} must answer. Received: {code.name}, "
                    f"{_short(text)}, for {self.retry_seconds:g} s. Start it, and give "
                    "the same command again: what is done is kept."
                )
            if pause == _FIRST_PAUSE:
                logging.warning("%s does not answer, and is asked again", self.server)
            # Not all at once when it comes back.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)


class _RestError(grpc.RpcError):
    """An answer of REST with what it means in gRPC."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = lambda: code
        self.details = lambda: details


def _numbers(values: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(values, dtype)
    if array.dtype.kind == "U":
        return array.astype(object)  # as gRPC has texts, of any length
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _short(text: str | None) -> str:
    return (text or "").strip().splitlines()[0][:300] if (text or "").strip() else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientConfig(ExtractionSettings):
    """What is extracted, and by which server.

    Example:
        >>> ClientConfig(images="photos", output="features.npz").server
        'localhost:8500'
    """

    server: str = setting("localhost:8500", "host:port.")
    transport: str = setting("grpc", "Protocol.", choices=("grpc", "rest"))
    model_name: str = setting("slotcon", "As served.")
    version: int | None = setting(None, "Of the model; the newest if unset.", low=0)
    version_label: str = setting("", "Label of a version, such as stable.")
    deadline_s: float = setting(30.0, "Seconds for a request.", low=0.0)
    retry_minutes: float = setting(5.0, "Wait for a server so long.", low=0.0)
    max_message_mb: int = setting(64, "Largest message.", low=1)


def client(config: ClientConfig) -> None:
    """Asks a server for the features of images, and prints what came of it.

    Args:
        config: What is extracted, by which server, and where it goes.

    Raises:
        ValueError, OSError: If the server has no such model, signature or output, does
            not answer, or there are no images.
        CommandError: If it refuses to be asked.

    Example:
        >>> config = ClientConfig(images="none", output="a.npz")
        >>> client(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: Dataset 'folder' needs the folder none. ...
    """
    images = listed_images(config.images)
    asked = FeatureClient(
        config.server,
        transport=config.transport,
        model_name=config.model_name,
        version=config.version,
        version_label=config.version_label,
        signature=config.signature,
        outputs=config.fetched,
        deadline=config.deadline_s,
        retry_seconds=60 * config.retry_minutes,
        max_message_bytes=config.max_message_mb * 2**20,
    )
    with asked:
        try:
            asked.check()
        except RequestError as error:
            raise CommandError(str(error)) from error
        run(asked.extract, images, config)


main = Command("client", ClientConfig, client, __doc__)

if __name__ == "__main__":
    main()
