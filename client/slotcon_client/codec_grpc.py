"""What is asked, and what is answered, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from slotcon_client import tensors
from slotcon_client.answers import Outputs
from slotcon_client.codecs import (
    Answer,
    Garbled,
    Message,
    Metadata,
    Place,
    read_output,
)
from slotcon_client.protocol import SERVING, STATES, message, method


class Grpc:
    """TF Serving's messages as protocol buffers.

    Args:
        model, max_bytes: As of `Codec`.

    Example:
        >>> Grpc("slotcon").status().path
        '/tensorflow.serving.ModelService/GetModelStatus'
    """

    def __init__(self, model: str, max_bytes: int = 64 * 2**20) -> None:
        self.model = model
        self.max_bytes = max_bytes

    def metadata(self, place: Place) -> Message:
        """`Codec.metadata`."""
        spec: dict[str, Any] = {"name": self.model}
        if place.number is not None:
            spec["version"] = {"value": place.number}
        elif place.label:
            spec["version_label"] = place.label
        return _packed(
            "GetModelMetadata", model_spec=spec, metadata_field=["signature_def"]
        )

    def told(self, answer: bytes) -> Metadata:
        """`Codec.told`."""
        told = _unpacked("GetModelMetadataResponse", answer)
        signatures = _unpacked("SignatureDefMap", told.metadata["signature_def"].value)
        return Metadata(
            told.model_spec.name,
            _version(told.model_spec),
            {
                name: (
                    list(one.inputs),
                    {key: _form(info) for key, info in one.outputs.items()},
                )
                for name, one in signatures.signature_def.items()
            },
        )

    def predict(
        self, number: int, signature: str, content: Sequence[bytes], names: list[str]
    ) -> Message:
        """`Codec.predict`."""
        spec = {"name": self.model, "version": {"value": number}}
        spec["signature_name"] = signature
        inputs = {"image_bytes": tensors.write_files(content)}
        return _packed("Predict", model_spec=spec, inputs=inputs, output_filter=names)

    def predicted(self, answer: bytes, outputs: Outputs) -> Answer:
        """`Codec.predicted`."""
        found = _unpacked("PredictResponse", answer)
        read = {}
        for name, tensor in found.outputs.items():
            if name in outputs:
                read[name] = read_output(name, tensors.read_tensor, tensor, self.max_bytes)
        spec = found.model_spec
        return Answer(read, spec.name, _version(spec), spec.signature_name)

    def status(self) -> Message:
        """`Codec.status`."""
        return _packed("GetModelStatus", model_spec={"name": self.model})

    def states(self, answer: bytes) -> dict[int, str]:
        """`Codec.states`."""
        found = _unpacked("GetModelStatusResponse", answer)
        return {
            one.version: STATES.get(one.state, "UNKNOWN")
            for one in found.model_version_status
        }

    def health(self) -> Message:
        """`Codec.health`."""
        return _packed("HealthCheck")

    def well(self, answer: bytes) -> bool:
        """`Codec.well`."""
        return _unpacked("HealthCheckResponse", answer).status == SERVING


def _packed(name: str, **fields: Any) -> Message:
    request = message(f"{name}Request")(**fields)
    return Message(method(name), request.SerializeToString())


def _unpacked(name: str, answer: bytes) -> Any:
    try:
        return message(name).FromString(answer)
    except DecodeError as error:
        raise Garbled(str(error)) from None


def _version(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _form(info: Any) -> tuple[str, tuple[int | None, ...] | None]:
    """dtype and shape of a TensorInfo; one of no kind that travels is never read."""
    kind = tensors.KINDS.get(info.dtype)
    shape = info.tensor_shape
    sizes = tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)
    return kind.name if kind else "?", None if shape.unknown_rank else sizes
