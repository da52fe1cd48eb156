"""What the local server answers, whichever way a call came: TF Serving's calls.

The words of a refusal are TF Serving's where clients look for them. A model of this
project has no signature for Classify, Regress or MultiInference: they are refused as TF
Serving refuses them, by what the signature lacks.
"""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from .server_errors import Refused, invalid
from .server_model import DEFAULT_SIGNATURE, answer
from .server_tensors import Limits, write_tensor
from .server_versions import Versions

_CLASSIFY, _REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
_SIGNATURES = "signature_def"


class Answers:
    """The calls of PredictionService and ModelService, from message to message.

    Args:
        versions: What is served.
        limits: What a request may ask for.

    Example:
        >>> import tempfile
        >>> import tensorflow as tf
        >>> folder = tempfile.mkdtemp()
        >>> numbers = tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), f"{folder}/1", half)
        >>> versions = Versions(folder, "slotcon")
        >>> versions.poll()
        >>> request = predict_pb2.PredictRequest(model_spec={"name": "slotcon"})
        >>> request.inputs["x"].CopyFrom(tf.make_tensor_proto([3.0]))
        >>> found = Answers(versions, Limits()).predict(request)
        >>> tf.make_ndarray(found.outputs["y"]).tolist()
        [1.5]
    """

    def __init__(self, versions: Versions, limits: Limits) -> None:
        self.versions = versions
        self.limits = limits

    def predict(self, request: Any, seconds: float | None = None) -> Any:
        """Outputs of a signature, all or those of the filter.

        Args:
            request: PredictRequest.
            seconds: Until whoever asks has gone.

        Raises:
            Refused, tf.errors.OpError: If it cannot be answered.
        """
        _check_spec(request)
        version = self.versions.get(request.model_spec)
        outputs = answer(version, request, self.limits, seconds)
        response = predict_pb2.PredictResponse()
        self._sign(response.model_spec, version)
        name = request.model_spec.signature_name
        response.model_spec.signature_name = name or DEFAULT_SIGNATURE
        for key, array in outputs.items():
            write_tensor(array, response.outputs[key])
        return response

    def _sign(self, spec: Any, version: Any) -> None:
        spec.name = self.versions.name
        spec.version.value = version.number

    def metadata(self, request: Any) -> Any:
        """GetModelMetadata: the signatures.

        Raises:
            Refused: If another field is asked for, or there is no such model.
        """
        _check_spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != _SIGNATURES:
                raise invalid(f"Metadata field {field} is not supported")
        version = self.versions.get(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in version.definitions.items():
            signatures.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._sign(response.model_spec, version)
        response.metadata[_SIGNATURES].Pack(signatures)
        return response

    def status(self, request: Any) -> Any:
        """GetModelStatus: of one version, or of all; a label is not looked at.

        Raises:
            Refused: If there is none.
        """
        _check_spec(request)
        spec = request.model_spec
        states = self.versions.states() if spec.name == self.versions.name else {}
        looked_for = "any versions"
        if spec.HasField("version"):
            looked_for = f"version {spec.version.value}"
            states = {k: v for k, v in states.items() if k == spec.version.value}
        if not states:
            raise Refused(
                "NOT_FOUND", f"Could not find {looked_for} of model {spec.name}"
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, (state, text) in sorted(states.items(), reverse=True):
            status = response.model_version_status.add(version=number, state=state)
            status.status.SetInParent()
            if text:
                status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
                status.status.error_message = text
        return response

    def classify(self, request: Any) -> Any:
        """Refused: says what the signature lacks."""
        definition = self._definition_of(request)
        _check_classify(definition)
        raise _without("Classify")

    def regress(self, request: Any) -> Any:
        """Refused: says what the signature lacks."""
        definition = self._definition_of(request)
        _check_regress(definition)
        raise _without("Regress")

    def _definition_of(self, request: Any) -> Any:
        _check_spec(request)
        version = self.versions.get(request.model_spec)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in version.definitions:
            raise invalid(f"No signature was found with the name: {name}")
        return version.definitions[name]

    def multi_inference(self, request: Any) -> Any:
        """Refused: says what the first signature that is asked for lacks."""
        specs = [task.model_spec for task in request.tasks]
        version = self.versions.get(specs[0] if specs else model_pb2.ModelSpec())
        seen = set()
        for task in request.tasks:
            if not task.model_spec.name:
                raise invalid("Found ModelSpec with an empty model name.")
            if task.model_spec.name != specs[0].name:
                raise invalid(
                    "All ModelSpecs in a MultiInferenceRequest must access the same "
                    "model name."
                )
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if name in seen:
                raise invalid(f"Duplicate evaluation of signature: {name}")
            seen.add(name)
            if name not in version.definitions:
                raise invalid(f"Requested signature not found in model graph: {name}")
            if task.method_name == _CLASSIFY:
                _check_classify(version.definitions[name])
            elif task.method_name == _REGRESS:
                _check_regress(version.definitions[name])
            else:
                raise Refused(
                    "UNIMPLEMENTED",
                    f"Unsupported signature method_name: {task.method_name}",
                )
        raise _without("MultiInference")

    def reload(self, request: Any) -> Any:
        """Refused: versions and labels of this server are told at its start."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        raise Refused(
            "UNIMPLEMENTED",
            "This development server takes its model and labels from its command line "
            "(--export_dir, --version_labels). Start it anew with others.",
        )


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _check_classify(definition: Any) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(definition.outputs) not in (1, 2):
        raise invalid(
            "Expected one or two output Tensors, found " + str(len(definition.outputs))
        )
    if "inputs" not in definition.inputs:
        raise _lacks("No classification inputs found in SignatureDef", definition)
    if not {"classes", "scores"} & set(definition.outputs):
        raise _lacks(
            "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was',
            definition,
        )


def _check_regress(definition: Any) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(definition.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    for kind, known in [("inputs", definition.inputs), ("outputs", definition.outputs)]:
        if kind not in known:
            raise _lacks(f"No regression {kind} found in SignatureDef", definition)


def _lacks(text: str, definition: Any) -> Refused:
    return Refused("FAILED_PRECONDITION", f"{text}: {definition}")


def _without(call: str) -> Refused:
    return Refused(
        "UNIMPLEMENTED",
        f"This development server answers no {call}, of any model. Ask TF Serving.",
    )
