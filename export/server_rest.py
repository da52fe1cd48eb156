"""TF Serving's REST calls on the local server, for curl.

`POST /v1/models/NAME[/versions/N|/labels/LABEL]:predict` takes a JSON object of
`signature_name` and `inputs`, a list per input, bytes as `{"b64": ...}`; the answer has
`outputs`. `GET` of the path without `:predict` tells the versions.

Differs from TF Serving: `instances`, rows in place of columns, is refused by its name.
"""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow_serving.apis import model_pb2

from .server_tensors import read_inputs
from .server_versions import InvalidRequest, NotServed, Versions

_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?(?P<verb>:predict)?"
)
_DEFAULT = "serving_default"


def start_rest(
    versions: Versions, *, host: str, port: int, max_message_mb: int
) -> http.server.ThreadingHTTPServer:
    """Starts to listen, in threads that end with the process.

    Args:
        versions: What is served.
        host: Address to listen on.
        port: 0 for a free one; `server_port` of the result has it.
        max_message_mb: Largest request.

    Raises:
        OSError: If the port is taken.

    Example:
        >>> import tempfile, urllib.request
        >>> versions = Versions(tempfile.mkdtemp(), "slotcon")
        >>> server = start_rest(versions, host="127.0.0.1", port=0, max_message_mb=1)
        >>> url = f"http://127.0.0.1:{server.server_port}/v1/models/slotcon"
        >>> json.load(urllib.request.urlopen(url))
        {'model_version_status': []}
        >>> server.shutdown()
        >>> server.server_close()
    """
    own = {"versions": versions, "limit": max_message_mb * 2**20}
    handler = type("Handler", (_Handler,), own)
    try:
        server = http.server.ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise OSError(
            f"`rest_port` must be free on {host}. Received: rest_port={port}: "
            f"{error.strerror}. Take another one, or 0 for no REST."
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Handler(http.server.BaseHTTPRequestHandler):
    versions: Versions
    limit: int  # bytes of a request
    timeout = 60  # seconds that a client may be silent

    def do_GET(self) -> None:  # noqa: N802  the base class's name
        self._answered(self._status)

    def do_POST(self) -> None:  # noqa: N802
        self._answered(self._predict)

    def log_message(self, *_: Any) -> None:
        """Nothing: the log is for what goes wrong."""

    def _answered(self, call: Any) -> None:
        try:
            status, answer = 200, call(_PATH.fullmatch(self.path))
        except NotServed as error:
            status, answer = 404, {"error": str(error)}
        except (InvalidRequest, tf.errors.InvalidArgumentError) as error:
            status, answer = 400, {"error": str(error)}
        except Exception as error:
            logging.exception("%s failed", self.path)
            status, answer = 500, {"error": f"{type(error).__name__}: {error}"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _status(self, path: re.Match | None) -> dict[str, Any]:
        if not path or path["verb"] or path["name"] != self.versions.name:
            raise NotServed(f"Malformed request: GET {self.path}")
        return {"model_version_status": [{"version": str(n)} for n in self._numbers()]}

    def _numbers(self) -> list[int]:
        return sorted(self.versions.numbers(), reverse=True)

    def _predict(self, path: re.Match | None) -> dict[str, Any]:
        if not path or not path["verb"]:
            raise NotServed(f"Malformed request: POST {self.path}")
        spec = model_pb2.ModelSpec(name=path["name"])
        if path["version"]:
            spec.version.value = int(path["version"])
        elif path["label"]:
            spec.version_label = path["label"]
        version = self.versions.get(spec)
        request = self._request()
        name = str(request.get("signature_name") or _DEFAULT)
        if name not in version.signatures:
            raise InvalidRequest(
                f"signature_name must be one of {sorted(version.signatures)}. "
                f"Received: {name}."
            )
        definition = version.definitions[name]
        given = _protos(request["inputs"], definition)
        outputs = version.signatures[name](**read_inputs(given, definition, self.limit))
        return {"outputs": {key: _listed(v.numpy()) for key, v in outputs.items()}}

    def _drop(self, size: int) -> None:
        """Reads on for a while: a client that still sends would miss the answer."""
        self.close_connection = True
        left = min(size, 4 * self.limit)
        while left and self.rfile.read(min(left, 2**16)):
            left -= min(left, 2**16)

    def _request(self) -> dict[str, Any]:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > self.limit:
            self._drop(int(size) if size.isdecimal() else 0)
            raise InvalidRequest(
                f"Content-Length must be at most {self.limit}. Received: {size or '-'}."
            )
        try:
            request = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"The body must be JSON. Received: {error}.") from None
        if not isinstance(request, dict) or not isinstance(request.get("inputs"), dict):
            raise InvalidRequest(
                'The body must be {"signature_name": ..., "inputs": {name: [...]}}. '
                "Received: another form. `instances` is not read here."
            )
        return request


def _listed(array: np.ndarray) -> Any:
    """Numbers as they are, strings as text, as TF Serving has them."""
    if array.dtype != object:
        return array.tolist()
    texts = [text.decode(errors="replace") for text in array.flat]
    return np.array(texts, object).reshape(array.shape).tolist()


def _protos(inputs: dict[str, Any], definition: Any) -> dict[str, Any]:
    """TensorProtos of a request's inputs; names are checked by who reads them."""
    found = {}
    for name, values in inputs.items():
        info = definition.inputs.get(name)
        dtype = tf.as_dtype(info.dtype) if info is not None else None
        try:
            if dtype == tf.string:
                values = np.array([_bytes(value) for value in values], object)
            elif dtype is not None:
                values = np.array(values, dtype.as_numpy_dtype)
            found[name] = tf.make_tensor_proto(values, dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRequest(f"input {name} cannot be read: {error}.") from None
    return found


def _bytes(value: Any) -> bytes:
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"a text or a b64 is needed, not {type(value).__name__}")
