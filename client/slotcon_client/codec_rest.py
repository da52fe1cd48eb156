"""What is asked, and what is answered, over REST."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Sequence
from typing import Any

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


class Rest:
    """TF Serving's messages as JSON.

    Args:
        model, max_bytes: As of `Codec`.

    Example:
        >>> Rest("slotcon").metadata(Place(label="stable")).path
        '/v1/models/slotcon/labels/stable/metadata'
    """

    def __init__(self, model: str, max_bytes: int = 64 * 2**20) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self._root = f"/v1/models/{_quoted(model)}"

    def metadata(self, place: Place) -> Message:
        """`Codec.metadata`."""
        where = ""
        if place.number is not None:
            where = f"/versions/{place.number}"
        elif place.label:
            where = f"/labels/{_quoted(place.label)}"
        return Message(f"{self._root}{where}/metadata")

    def told(self, answer: bytes) -> Metadata:
        """`Codec.told`."""
        told = _json(answer)
        try:
            spec = told["model_spec"]
            signatures = told["metadata"]["signature_def"]["signature_def"]
            return Metadata(
                str(spec["name"]),
                int(spec["version"]) if spec.get("version") else None,
                {
                    str(name): (
                        list(one.get("inputs", {})),
                        {k: _form_of(v) for k, v in one.get("outputs", {}).items()},
                    )
                    for name, one in signatures.items()
                },
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"no metadata: {error!r}") from None

    def predict(
        self, number: int, signature: str, content: Sequence[bytes], names: list[str]
    ) -> Message:
        """`Codec.predict`; REST knows no filter of outputs."""
        del names
        files = [{"b64": base64.b64encode(data).decode()} for data in content]
        body = {"signature_name": signature, "inputs": {"image_bytes": files}}
        where = f"{self._root}/versions/{number}:predict"
        return Message(where, json.dumps(body).encode())

    def predicted(self, answer: bytes, outputs: Outputs) -> Answer:
        """`Codec.predicted`."""
        told = _json(answer)
        if not isinstance(told, dict) or "outputs" not in told:
            raise Garbled("no `outputs`")
        found = told["outputs"]
        if len(outputs) == 1 and not isinstance(found, dict):
            found = dict.fromkeys(outputs, found)  # the only one goes without its name
        if not isinstance(found, dict):
            raise Garbled("no outputs by name")
        return Answer(
            {
                name: read_output(name, tensors.read_json, found[name], *form)
                for name, form in outputs.items()
                if name in found
            }
        )

    def status(self) -> Message:
        """`Codec.status`."""
        return Message(self._root)

    def states(self, answer: bytes) -> dict[int, str]:
        """`Codec.states`."""
        try:
            listed = _json(answer)["model_version_status"]
            return {
                int(one["version"]): str(one.get("state", "UNKNOWN")) for one in listed
            }
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"no status: {error!r}") from None

    def health(self) -> Message:
        """`Codec.health`."""
        return Message("/healthz")

    def well(self, answer: bytes) -> bool:
        """`Codec.well`: any answer but an error."""
        del answer
        return True


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _json(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"no JSON: {error}") from None


def _form_of(info: Any) -> tuple[str, tuple[int | None, ...] | None]:
    names = {kind.rest: kind.name for kind in tensors.KINDS.values()}
    shape = info["tensor_shape"]
    sizes = [int(dim["size"]) for dim in shape.get("dim", [])]
    known = tuple(size if size >= 0 else None for size in sizes)
    return names.get(info["dtype"], "?"), None if shape.get("unknown_rank") else known
