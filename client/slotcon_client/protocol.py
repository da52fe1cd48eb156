"""The messages of TF Serving and of gRPC's health check, as far as a client needs them.

They are alike on the wire, and have names and a pool of their own: TensorFlow's and
tensorflow_serving's live beside them in one process, and no generated code binds them
to a version of protobuf.

Reference: tensorflow_serving/apis/*.proto and tensorflow/core/framework/*.proto of
TensorFlow Serving 2.19, grpc/health/v1/health.proto.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "slotcon_client"
# A message a line: its name, then number, kind and name of each field. `*` is repeated,
# `~` a map from text.
_MESSAGES = """
Int64Value: 1 int64 value
Any: 1 string type_url, 2 bytes value
ModelSpec: 1 string name, 2 Int64Value version, 3 string signature_name, \
4 string version_label
Dim: 1 int64 size, 2 string name
TensorShape: 2 *Dim dim, 3 bool unknown_rank
Tensor: 1 int32 dtype, 2 TensorShape tensor_shape, 3 int32 version_number, \
4 bytes tensor_content, 5 *float float_val, 6 *double double_val, 7 *int32 int_val, \
8 *bytes string_val, 9 *float scomplex_val, 10 *int64 int64_val, 11 *bool bool_val, \
12 *double dcomplex_val, 13 *int32 half_val, 16 *uint32 uint32_val, \
17 *uint64 uint64_val
PredictRequest: 1 ModelSpec model_spec, 2 ~Tensor inputs, 3 *string output_filter
PredictResponse: 1 ~Tensor outputs, 2 ModelSpec model_spec
TensorInfo: 1 string name, 2 int32 dtype, 3 TensorShape tensor_shape
SignatureDef: 1 ~TensorInfo inputs, 2 ~TensorInfo outputs, 3 string method_name
SignatureDefMap: 1 ~SignatureDef signature_def
GetModelMetadataRequest: 1 ModelSpec model_spec, 2 *string metadata_field
GetModelMetadataResponse: 1 ModelSpec model_spec, 2 ~Any metadata
Status: 1 int32 error_code, 2 string error_message
ModelVersionStatus: 1 int64 version, 2 int32 state, 3 Status status
GetModelStatusRequest: 1 ModelSpec model_spec
GetModelStatusResponse: 1 *ModelVersionStatus model_version_status
HealthCheckRequest: 1 string service
HealthCheckResponse: 1 int32 status
"""
_METHODS = {
    "Predict": "/tensorflow.serving.PredictionService/Predict",
    "GetModelMetadata": "/tensorflow.serving.PredictionService/GetModelMetadata",
    "GetModelStatus": "/tensorflow.serving.ModelService/GetModelStatus",
    "HealthCheck": "/grpc.health.v1.Health/Check",
}
STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
SERVING = 1  # of a HealthCheckResponse
_Field = descriptor_pb2.FieldDescriptorProto
_ONE = _Field.LABEL_OPTIONAL
_MANY = _Field.LABEL_REPEATED


def _file() -> bytes:
    """The file's descriptor, as it lies on the wire."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{PACKAGE}/protocol.proto", package=PACKAGE, syntax="proto3"
    )
    for line in _MESSAGES.strip().splitlines():
        name, _, fields = line.partition(": ")
        made = file.message_type.add(name=name)
        for words in fields.split(", "):
            number, kind, field = words.split()
            _add(made, int(number), kind, field)
    return file.SerializeToString()


def _add(message: Any, number: int, kind: str, name: str) -> None:
    label = _MANY if kind[0] in "*~" else _ONE
    one = kind.lstrip("*~")
    if kind[0] == "~":
        entry = "".join(word.title() for word in name.split("_")) + "Entry"
        pair = message.nested_type.add(name=entry)
        pair.options.map_entry = True
        _add(pair, 1, "string", "key")
        _add(pair, 2, one, "value")
        one = f"{message.name}.{entry}"
    field = message.field.add(name=name, number=number, label=label)
    if one[0].isupper():
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{one}"
    else:
        field.type = getattr(_Field, f"TYPE_{one.upper()}")


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file())


@functools.cache
def message(name: str) -> Any:
    """The class of a message.

    Args:
        name: As in TF Serving, or `Tensor`, `TensorShape`, `Dim` and `Any`.

    Raises:
        KeyError: If there is none of this name here.

    Example:
        >>> spec = message("ModelSpec")(name="slotcon", version={"value": 3})
        >>> message("ModelSpec").FromString(spec.SerializeToString()).version.value
        3
    """
    return message_factory.GetMessageClass(
        _POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")
    )


def method(name: str) -> str:
    """The path of a call.

    Args:
        name: "Predict", "GetModelMetadata", "GetModelStatus" or "HealthCheck".

    Example:
        >>> method("Predict")
        '/tensorflow.serving.PredictionService/Predict'
    """
    return _METHODS[name]
