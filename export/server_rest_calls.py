"""TF Serving's REST calls, from a path and a body to the JSON of an answer."""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import functools
import json
import re
import urllib.parse
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from .server_answers import Answers
from .server_errors import invalid
from .server_json_read import parse, read
from .server_json_write import write
from .server_model import DEFAULT_SIGNATURE

_MODEL = r"/v1/models/(?P<name>[^/:]+)"
_WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PATHS = {
    "POST": re.compile(rf"{_MODEL}{_WHICH}:(?P<call>classify|regress|predict)"),
    "GET": re.compile(rf"{_MODEL}{_WHICH}(?P<call>/metadata)?"),
}
_NAMES = {
    "predict": "Predict",
    "classify": "Classify",
    "regress": "Regress",
    "/metadata": "GetModelMetadata",
    None: "GetModelStatus",
}
_LARGEST = 2**63 - 1  # version in a message: int64


class Call:
    """What a method and a path ask for.

    Args:
        method: Of HTTP.
        path: As it came, with what is escaped.

    Attributes:
        name: Of the call of gRPC that it stands for.

    Raises:
        Refused: If it is none of TF Serving's.

    Example:
        >>> Call("GET", "/v1/models/slotcon/labels/stable/metadata").name
        'GetModelMetadata'
    """

    def __init__(self, method: str, path: str) -> None:
        pattern = _PATHS.get(method)
        found = pattern.fullmatch(path) if pattern else None
        if not found:
            raise invalid(f"Malformed request: {method} {path}")
        self.name = _NAMES[found["call"]]
        self._spec = model_pb2.ModelSpec(name=urllib.parse.unquote(found["name"]))
        if found["version"]:
            # As many digits as there are would take their time to read.
            number = int(found["version"][:20])
            if number > _LARGEST or len(found["version"]) > 20:
                raise invalid(
                    f"Failed to convert version: {found['version']} to numeric."
                )
            self._spec.version.value = number
        elif found["label"]:
            self._spec.version_label = urllib.parse.unquote(found["label"])

    def answer(
        self, answers: Answers, body: bytes = b"", seconds: float | None = None
    ) -> bytes:
        """The JSON of the answer.

        Args:
            answers: Of the server.
            body: Of the request.
            seconds: After which it is given up.

        Raises:
            Refused, tf.errors.OpError: If it cannot be answered.
        """
        if self.name == "GetModelStatus":
            return self._status(answers)
        if self.name == "GetModelMetadata":
            return self._metadata(answers)
        asked = parse(body, answers.limits.max_bytes)
        self._spec.signature_name = asked.get("signature_name", "")
        if self.name == "Predict":
            return self._predict(answers, asked, seconds)
        if not isinstance(asked.get("examples"), list):
            raise invalid(f"{self.name} needs 'examples', a list, which is not there.")
        if self.name == "Classify":
            request = classification_pb2.ClassificationRequest(model_spec=self._spec)
            return answers.classify(request)
        return answers.regress(regression_pb2.RegressionRequest(model_spec=self._spec))

    def _predict(
        self, answers: Answers, asked: dict[str, Any], seconds: float | None
    ) -> bytes:
        version = answers.versions.get(self._spec)
        name = self._spec.signature_name or DEFAULT_SIGNATURE
        if name not in version.definitions:
            raise invalid(
                f'Serving signature name: "{name}" not found in signature def. There '
                f"are {version.known()}."
            )
        definition = version.definition(name)
        inputs, rows = read(asked, definition, answers.limits)
        return write(version.run(name, inputs, list(definition.outputs), seconds), rows)

    def _status(self, answers: Answers) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec)
        return json.dumps(_plain(answers.status(request)), indent=1).encode()

    def _metadata(self, answers: Answers) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        answer = answers.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        named = functools.partial(_plain, preserving_proto_field_name=True)
        told = {
            "model_spec": named(answer.model_spec),
            "metadata": {"signature_def": named(signatures)},
        }
        return json.dumps(told, indent=1).encode()


_plain = functools.partial(
    json_format.MessageToDict, always_print_fields_with_no_presence=True
)
