"""A model server that lies, stalls or breaks; the model's name says how.

`LyingServer` serves every name of `tests.support.lies.LIES`, `honest`, and what breaks
`once.`: of each it tells the same metadata, but where that is the lie. It needs no
TensorFlow.
"""

import base64
import collections
import concurrent.futures
import contextlib
import json
import socketserver
import threading
import urllib.parse

import grpc

from slotcon_client.protocol import message, method
from slotcon_client.tensors import KINDS, NUMBERS, read_tensor, write_tensor
from tests.support.lies import (
    ANSWERS,
    BYTES,
    CODES,
    DETECTIONS,
    HTTP,
    JSONS,
    METADATA,
    NO_OBJECTS,
    SIGNATURE,
    SPECS,
    STALL,
    TENSORS,
    VERSION,
    honest,
    no_objects,
    sized,
)

LONGEST = 2**23  # bytes of a request, of which no more are read


class LyingServer:
    """Both servers, in threads; `grpc` and `rest` are their addresses."""

    def __init__(self, credentials=None, context=None, token=None):
        self.seen = (
            collections.Counter()
        )  # of (transport, model): calls that were lied to, or predictions
        self.lock = threading.Lock()
        self.token = token
        self.ended = threading.Event()
        self._grpc = grpc.server(
            concurrent.futures.ThreadPoolExecutor(64),
            options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        self._grpc.add_generic_rpc_handlers([_Calls(self)])
        if credentials:
            port = self._grpc.add_secure_port("localhost:0", credentials)
        else:
            port = self._grpc.add_insecure_port("127.0.0.1:0")
        self.grpc = f"{'localhost' if credentials else '127.0.0.1'}:{port}"
        self._grpc.start()
        self.http = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Http)
        self.http.daemon_threads = True
        self.http.lying = self
        port = self.http.server_address[1]
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.rest = f"{'localhost' if context else '127.0.0.1'}:{port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.ended.set()
        self._grpc.stop(None)
        self.http.shutdown()
        self.http.server_close()

    def lie(self, transport, model, call):
        """The lie that a call is to be answered with, or None."""
        if call == "metadata":
            if "metadata" not in model:
                return None
            self.seen[transport, model] += 1
            return model.removeprefix("metadata.")
        with self.lock:
            self.seen[transport, model] += 1
            number = self.seen[transport, model]
        if model.startswith("once."):
            return model.removeprefix("once.") if number == 1 else None
        return model


def answers(lie, files):
    found = honest(files)
    if lie == NO_OBJECTS:
        return no_objects(found, files)
    return ANSWERS[lie](found, files) if lie in ANSWERS else found


def metadata(lie, model):
    """(model, version, signatures)."""
    made = DETECTIONS if model == NO_OBJECTS else SIGNATURE
    truth = (model, VERSION, {"image_bytes": (("image_bytes",), made)})
    return METADATA[lie](*truth) if lie in METADATA else truth


class _Calls(grpc.GenericRpcHandler):
    def __init__(self, server):
        self.server = server

    def service(self, details):
        told = dict(details.invocation_metadata)
        calls = {
            method("Predict"): self.predict,
            method("GetModelMetadata"): self.metadata,
            method("GetModelStatus"): self.status,
        }
        token = self.server.token
        if token and told.get("authorization") != f"Bearer {token}":
            return grpc.unary_unary_rpc_method_handler(_refuse)
        call = calls.get(details.method)
        return call and grpc.unary_unary_rpc_method_handler(call)

    def predict(self, body, context):
        request = message("PredictRequest").FromString(body)
        spec = request.model_spec
        lie = self.server.lie("grpc", spec.name, "predict")
        assert spec.version.value == VERSION, "not asked by its number"
        found = answers(lie, list(read_tensor(request.inputs["image_bytes"], 2**30)))
        response = message("PredictResponse")(
            model_spec={
                "name": spec.name,
                "version": {"value": VERSION},
                "signature_name": spec.signature_name,
                **SPECS.get(lie, {}),
            }
        )
        for name, array in found.items():
            if name in request.output_filter:
                response.outputs[name].CopyFrom(write_tensor(array))
        if lie in TENSORS:
            TENSORS[lie](response)
        return self._sent(lie, response.SerializeToString(), context)

    def metadata(self, body, context):
        request = message("GetModelMetadataRequest").FromString(body)
        lie = self.server.lie("grpc", request.model_spec.name, "metadata")
        model, version, signatures = metadata(lie, request.model_spec.name)
        response = message("GetModelMetadataResponse")(model_spec={"name": model})
        if version:
            response.model_spec.version.value = version
        known = message("SignatureDefMap")()
        for name, (taken, made) in signatures.items():
            one = known.signature_def[name]
            for key in taken:
                one.inputs[key].dtype = NUMBERS["string"]
            for key, (dtype, shape) in made.items():
                one.outputs[key].dtype = NUMBERS.get(dtype, 20)
                one.outputs[key].tensor_shape.SetInParent()
                for length in shape:
                    one.outputs[key].tensor_shape.dim.add(size=length)
        response.metadata["signature_def"].value = known.SerializeToString()
        return self._sent(lie, response.SerializeToString(), context)

    def status(self, body, context):
        response = message("GetModelStatusResponse")()
        response.model_version_status.add(version=VERSION, state=30)
        return response.SerializeToString()

    def _sent(self, lie, body, context):
        if lie == "stalls":
            self.server.ended.wait(STALL)
        if lie in CODES:
            context.abort(grpc.StatusCode[lie], f"it is said to be {lie}")
        return BYTES[lie](body) if lie in BYTES else body


def _refuse(_, context):
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")


class _Http(socketserver.StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError):
            while line := self.rfile.readline().decode():
                headers = {}
                while field := self.rfile.readline().decode().strip():
                    name, _, value = field.partition(":")
                    headers[name.lower()] = value.strip()
                length = int(headers.get("content-length", 0))
                if length > LONGEST:
                    self.say(413, {"error": "too long"})
                    break  # and reads no further
                body = self.rfile.read(length)
                if not self.answer(line.split()[1], headers, body):
                    break

    def answer(self, path, headers, body):
        """Whether the connection is kept."""
        server = self.server.lying
        token = server.token
        if token and headers.get("authorization") != f"Bearer {token}":
            return self.say(401, {"error": "no token"})
        if path == "/healthz":  # as TF Serving
            return self.say(404, {"error": "no such page"})
        model, _, call = path.removeprefix("/v1/models/").partition("/")
        model = urllib.parse.unquote(model)
        if not call:
            state = {"version": str(VERSION), "state": "AVAILABLE"}
            return self.say(200, {"model_version_status": [state]})
        if call.endswith("metadata"):
            lie = server.lie("rest", model, "metadata")
            return self.send_all(lie, _metadata_of(*metadata(lie, model)))
        assert call == f"versions/{VERSION}:predict", "not asked by its number"
        lie = server.lie("rest", model, "predict")
        asked = json.loads(body)["inputs"]["image_bytes"]
        found = answers(lie, [base64.b64decode(one["b64"]) for one in asked])
        told = {name: array.tolist() for name, array in found.items()}
        if lie == "ragged_rows":
            told["pooled"][0].append(1.0)
        if lie == "numbers_as_texts":
            told["pooled"] = [[str(x) for x in row] for row in told["pooled"]]
        return self.send_all(lie, {"outputs": told})

    def send_all(self, lie, answer):
        if lie in HTTP:
            for piece in HTTP[lie](json.dumps(answer).encode()):
                self.wfile.write(piece)
                if self.server.lying.ended.is_set():
                    break
            return False
        if lie in JSONS:
            body = JSONS[lie].encode(errors="surrogateescape")
            self.wfile.write(sized(body))
            return True
        if lie and lie.isdigit():
            return self.say(int(lie), {"error": f"it is said to be {lie}"})
        return self.say(200, answer)

    def say(self, status, answer):
        body = json.dumps(answer).encode()
        head = (
            f"HTTP/1.1 {status} x\r\nLocation: /\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.wfile.write(head.encode() + body)
        return status == 200


def _metadata_of(model, version, signatures):
    kinds = {kind.name: kind.rest for kind in KINDS.values()}

    def form(dtype, shape):
        dims = [{"size": str(length), "name": ""} for length in shape]
        shape = {"dim": dims, "unknown_rank": False}
        return {"dtype": kinds.get(dtype, "DT_RESOURCE"), "tensor_shape": shape}

    listed = {
        name: {
            "inputs": {key: form("string", (-1,)) for key in taken},
            "outputs": {key: form(*one) for key, one in made.items()},
        }
        for name, (taken, made) in signatures.items()
    }
    spec = {"name": model, "signature_name": "", "version": str(version or "")}
    listed = {"signature_def": {"signature_def": listed}}
    return {"model_spec": spec, "metadata": listed}
