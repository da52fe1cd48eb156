"""A local model server for development and tests.

    python -m export.server --model_dir=served/slotcon

Answers TF Serving's gRPC calls (Predict, GetModelMetadata, GetModelStatus) on the
SavedModels of a folder, and loads a new version while it serves. Production runs TF
Serving itself: it batches requests, serves REST, and is written in C++.

Differs from TF Serving: it listens before there is a version, and says NOT_FOUND;
answers hold numbers as bytes (`tensor_content`), which tf.make_ndarray reads as well;
labels are set on the command line only; a damaged version is not tried again before its
files change, and the newest sound one is served, also after a start.
"""

import concurrent.futures
import signal
import sys
import threading

import grpc
import tensorflow as tf
from absl import app, flags, logging
from google.protobuf import any_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from slotcon_tf.runs.command_line import run_main

from .server_tensors import output_names, read_inputs, write_tensor
from .server_versions import InvalidRequest, NotServed, Versions

FLAGS = flags.FLAGS
_OWN = {"module_name": "export.server"}


def define_flags():
    """Defines the flags of this main, which importing it does not."""
    flags.DEFINE_string("model_dir", None, "Folder of all versions.", **_OWN)
    flags.DEFINE_string("model_name", "slotcon", "Name in requests.", **_OWN)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.", **_OWN)
    flags.DEFINE_integer("port", 8500, "Port; 0: a free one.", lower_bound=0, **_OWN)
    flags.DEFINE_integer("threads", 8, "Requests at once.", lower_bound=1, **_OWN)
    flags.DEFINE_integer(
        "max_message_mb", 64, "Largest request.", lower_bound=1, **_OWN
    )
    flags.DEFINE_float(
        "poll_seconds", 1.0, "Between looks at the folder.", lower_bound=0.01, **_OWN
    )
    flags.DEFINE_integer(
        "keep_versions", 1, "Newest versions to serve.", lower_bound=1, **_OWN
    )
    flags.DEFINE_list("version_labels", [], "Such as stable:1,canary:2.", **_OWN)


_GRACE = 30.0  # seconds for requests under way when the server stops
_DEFAULT = "serving_default"
# TensorFlow's codes are gRPC's.
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_TEXT = 1000  # characters of an error; gRPC puts it into a header


def _answering(method):
    """Turns errors into the status that TF Serving gives them."""

    def answer(self, request, context):
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

    def __init__(self, versions, max_bytes):
        self.versions = versions
        self.max_bytes = max_bytes

    @_answering
    def Predict(self, request):  # noqa: N802  gRPC's name
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
    def GetModelMetadata(self, request):  # noqa: N802
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

    def __init__(self, versions):
        self.versions = versions

    @_answering
    def GetModelStatus(self, request):  # noqa: N802
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


def start(versions, *, host, port, threads, max_message_mb):
    """Starts to listen.

    Returns:
        Tuple of the grpc server and its port.

    Raises:
        RuntimeError: If the port is taken.
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
    port = server.add_insecure_port(f"{host}:{port}")
    if not port:
        raise RuntimeError(f"{host} must have the port free.")
    server.start()
    return server, port


def main(argv):
    if len(argv) > 1 or not FLAGS.model_dir:
        raise app.UsageError("--model_dir is needed, and no arguments.")
    try:
        labels = [label.split(":") for label in FLAGS.version_labels]
        labels = {name: int(number) for name, number in labels}
    except ValueError:
        raise app.UsageError(
            "--version_labels must be such as stable:1,canary:2. "
            f"Received: {FLAGS.version_labels}."
        ) from None
    stopped = threading.Event()
    # Before the line that says it serves: who reads that may end it at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    versions = Versions(FLAGS.model_dir, FLAGS.model_name, labels, FLAGS.keep_versions)
    versions.poll()
    try:
        server, port = start(
            versions,
            host=FLAGS.host,
            port=FLAGS.port,
            threads=FLAGS.threads,
            max_message_mb=FLAGS.max_message_mb,
        )
    except RuntimeError as error:
        sys.exit(f"server: {error}")
    if not versions.numbers():
        logging.warning("No version in %s yet; it is looked for.", FLAGS.model_dir)
    print(
        f"Serving {FLAGS.model_name} version(s) {versions.numbers()} on "
        f"{FLAGS.host}:{port}",
        flush=True,
    )
    while not stopped.wait(FLAGS.poll_seconds):
        versions.poll()
    server.stop(_GRACE).wait()


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    define_flags()
    run_main(main, "export.server")
