"""What a server of SavedModels promises over gRPC: the local one, and TF Serving's.

TF Serving runs where its binary is (--server_binary); one process answers all tests of
this file and of test_serving_contract_rest.
"""

import concurrent.futures
import math

import ml_dtypes  # noqa: F401  names of dtypes for numpy
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.support.serving_case import PATIENCE, noise, refused
from tests.support.tiny_model import DTYPES

KINDS = {
    name: np.array(values, tf.as_dtype(name).as_numpy_dtype)
    for name, values in DTYPES.items()
}
SUMS = {"a": np.float32([[1, 2], [0.5, 0]]), "b": np.array([3, -1])}
IMAGE = noise(1, edge=16)


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("", {"image": noise(3, edge=32)}),
        ("", {"image": noise(0, edge=32)}),
        ("text", {"text": np.array([b"aGk", b""], object)}),
        ("sums", SUMS),
        ("kinds", KINDS),
    ],
)
def test_answers_equal_the_saved_models(tiny_server, signature, inputs):
    loaded = tf.saved_model.load(str(tiny_server.folder / "2"))
    function = loaded.signatures[signature or "serving_default"]
    truth = function(**{name: tf.constant(value) for name, value in inputs.items()})
    found, spec = tiny_server.predict(signature=signature, **inputs)
    assert set(found) == set(truth)
    for name, expected in truth.items():
        expected = np.asarray(expected)
        if expected.dtype == np.float32:  # other kernels, by the shape of a graph
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)
        else:
            assert found[name].tolist() == expected.tolist()
        assert found[name].dtype == expected.dtype
    assert spec.name == "slotcon" and spec.version.value == 2
    assert spec.signature_name == (signature or "serving_default")


def test_output_filters(tiny_server):
    for wanted in (["map"], ["pooled", "map"]):
        found, _ = tiny_server.predict(image=IMAGE, output_filter=wanted)
        assert set(found) == set(wanted)


def in_content(array):
    """A tensor as bytes; of strings all lengths come first."""
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    proto.tensor_shape.dim.add(size=len(array))
    if array.dtype == object:
        lengths = bytes(len(text) for text in array)
        proto.tensor_content = lengths + b"".join(array.tolist())
    else:
        proto.tensor_content = array.tobytes()
    return proto


# Field of each dtype's numbers, and how a number lies there.
FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "float16": "half_val",
    "bfloat16": "half_val",
}


def in_list(array):
    """A tensor in the list of its dtype; half floats as their bits."""
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    proto.tensor_shape.dim.add(size=len(array))
    name = tf.as_dtype(array.dtype).name
    values = array
    if name in ("float16", "bfloat16"):
        values = array.view(np.uint16)
    elif name.startswith("complex"):
        values = array.view(array.real.dtype)
    getattr(proto, FIELDS.get(name, "int_val")).extend(values.tolist())
    return proto


def one_for_all(array):
    """A single number stands for all."""
    proto = in_list(array[:1])
    proto.tensor_shape.dim[0].size = len(array)
    return proto


@pytest.mark.parametrize("form", [in_content, in_list, one_for_all])
def test_every_dtype_comes_in_every_form(tiny_server, form):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "slotcon", "kinds"
    for name, array in KINDS.items():
        request.inputs[name].CopyFrom(form(array))
    answer = tiny_server.predictions.Predict(request, timeout=PATIENCE)
    for name, array in KINDS.items():
        found = tf.make_ndarray(answer.outputs[name])
        expected = array[[0, 0]] if form is one_for_all else array
        assert found.tolist() == expected.tolist(), name
        assert found.dtype == expected.dtype


def test_requests_are_not_mixed_up(tiny_server):
    def ask(index):
        text = np.array([b"a" * 4 * (index % 7)] * (1 + index % 3), object)
        found = tiny_server.predict(signature="text", text=text)[0]["length"]
        return found.tolist() == [4 * (index % 7)] * (1 + index % 3)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(200)))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ({"model": "other"}, "NOT_FOUND", "not found for request: Latest(other)"),
        ({"version": 9}, "NOT_FOUND", "not found for request: Specific(slotcon, 9)"),
        (
            {"label": "no"},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: no",
        ),
        (
            {"signature": "other"},
            "FAILED_PRECONDITION",
            'Serving signature key "other" not found.',
        ),
        (
            {"signature": "sums", "a": SUMS["a"]},
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent "
            "extra: {}. Missing but required: {b}.",
        ),
        (
            {"signature": "sums", **SUMS, "z": SUMS["a"]},
            "INVALID_ARGUMENT",
            "Sent extra: {z}. Missing but required: {}.",
        ),
        ({"picture": IMAGE}, "INVALID_ARGUMENT", "picture"),
        ({"image": IMAGE.astype(np.float32)}, "INVALID_ARGUMENT", "uint8"),
        ({"image": IMAGE[0]}, "INVALID_ARGUMENT", ""),
        ({"image": IMAGE[..., :2]}, "INVALID_ARGUMENT", ""),
        (
            {"image": IMAGE, "output_filter": ["map", "other"]},
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: other Outputs expected to be "
            "in the set {map,pooled}.",
        ),
        (
            {"image": IMAGE, "output_filter": ["map", "map"]},
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: map",
        ),
        # What the model itself refuses.
        (
            {"signature": "text", "text": np.array([b"!"], object)},
            "INVALID_ARGUMENT",
            "Base64",
        ),
    ],
)
def test_refusals(tiny_server, arguments, code, words):
    with refused(code, words):
        tiny_server.predict(**arguments)


def test_a_deadline_ends_what_is_computed(tiny_server):
    with refused("DEADLINE_EXCEEDED"):
        tiny_server.predict(signature="forever", x=np.int32(1), timeout=0.5)
    assert tiny_server.predict(signature="forever", x=np.int32(0))[0]["x"] == 0


def test_versions_and_labels(tiny_server):
    for arguments, version in [
        ({}, 2),
        ({"version": 1}, 1),
        ({"version": 2}, 2),
        ({"label": "stable"}, 1),
    ]:
        found, spec = tiny_server.predict(image=IMAGE, **arguments)
        assert spec.version.value == version
        assert found["pooled"].shape == (1, 3 + version)
    # As with --allow_version_labels_for_unavailable_models.
    with refused("NOT_FOUND", "Specific(slotcon, 3)"):
        tiny_server.predict(image=IMAGE, label="canary")


def test_metadata_is_the_saved_models(tiny_server):
    ask = tiny_server.predictions.GetModelMetadata
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.metadata_field.append("signature_def")
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        ask(request)
    request.model_spec.name = "slotcon"
    for fields in ([], ["other"], ["signature_def", "other"]):
        request.metadata_field[:] = fields
        with refused("INVALID_ARGUMENT", "etadata" if fields else "at least one"):
            ask(request)
    request.metadata_field[:] = ["signature_def"]
    response = ask(request, timeout=PATIENCE)
    assert response.model_spec.name == "slotcon"
    assert response.model_spec.version.value == 2
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    saved = saved_model_pb2.SavedModel.FromString(
        (tiny_server.folder / "2" / "saved_model.pb").read_bytes()
    )
    assert found.signature_def == saved.meta_graphs[0].signature_def
    request.model_spec.name = "other"
    with refused("NOT_FOUND"):
        ask(request)


def test_status(tiny_server):
    ask = tiny_server.models.GetModelStatus
    request = get_model_status_pb2.GetModelStatusRequest()
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        ask(request)
    request.model_spec.name = "slotcon"
    first, second = ask(request, timeout=PATIENCE).model_version_status
    assert {first.version, second.version} == {1, 2}
    for status in (first, second):
        assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
        assert status.HasField("status") and status.status.error_code == 0
    request.model_spec.version.value = 1
    (one,) = ask(request, timeout=PATIENCE).model_version_status
    assert one.version == 1
    request.model_spec.version.value = 7
    with refused("NOT_FOUND", "Could not find version 7 of model slotcon"):
        ask(request)
    request.model_spec.name = "other"
    request.model_spec.ClearField("version")
    with refused("NOT_FOUND", "Could not find any versions of model other"):
        ask(request)


@pytest.mark.parametrize(
    ("signature", "call", "code", "words"),
    [
        ("", "Classify", "FAILED_PRECONDITION", "No classification inputs found"),
        ("sums", "Classify", "INVALID_ARGUMENT", "Expected one input Tensor."),
        (
            "image_bytes",
            "Classify",
            "INVALID_ARGUMENT",
            "Expected one or two output Tensors, found 3",
        ),
        ("no", "Classify", "INVALID_ARGUMENT", "found with the name: no"),
        ("", "Regress", "INVALID_ARGUMENT", "Expected one output Tensor."),
        ("half", "Regress", "FAILED_PRECONDITION", "No regression inputs found"),
        ("no", "Regress", "INVALID_ARGUMENT", "found with the name: no"),
    ],
)
def test_a_model_without_signatures_of_examples(
    tiny_server, signature, call, code, words
):
    message = {
        "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest,
    }[call]
    ask = getattr(tiny_server.predictions, call)
    request = message()
    request.input.example_list.examples.add()
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        ask(request)
    request.model_spec.name = "slotcon"
    request.model_spec.signature_name = signature
    with refused(code, words):
        ask(request)
    # The same as part of several.
    several = inference_pb2.MultiInferenceRequest(input=request.input)
    task = several.tasks.add(method_name=f"tensorflow/serving/{call.lower()}")
    task.model_spec.CopyFrom(request.model_spec)
    words = words.replace("found with the name", "not found in model graph")
    with refused(code, words):
        tiny_server.predictions.MultiInference(several)


def test_several_inferences(tiny_server):
    ask = tiny_server.predictions.MultiInference
    request = inference_pb2.MultiInferenceRequest()
    with refused("INVALID_ARGUMENT", "ModelSpec has no name specified."):
        ask(request)
    task = request.tasks.add(method_name="other")
    task.model_spec.name = "slotcon"
    with refused("UNIMPLEMENTED", "Unsupported signature method_name: other"):
        ask(request)
    task.model_spec.name = "other"
    with refused("NOT_FOUND", "Latest(other)"):
        ask(request)


def test_configs_without_models_are_refused(tiny_server):
    ask = tiny_server.models.HandleReloadConfigRequest
    request = model_management_pb2.ReloadConfigRequest()
    with refused("INVALID_ARGUMENT", "Only ModelConfigList is currently supported"):
        ask(request)
    if tiny_server.local:
        request.config.model_config_list.config.add(name="slotcon")
        with refused("UNIMPLEMENTED", "--version_labels"):
            ask(request)


def test_scalars(tiny_server):
    found, _ = tiny_server.predict(signature="forever", x=np.int32(-2))
    assert found["x"].shape == () and found["x"] == -2
    found, _ = tiny_server.predict(signature="half", x=np.float32([math.inf, math.nan]))
    assert found["y"][0] == math.inf and math.isnan(found["y"][1])
