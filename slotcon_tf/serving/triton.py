"""Model repositories of Triton, and what KServe needs to run one."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from slotcon_tf.files import to_disk, write_text, written_aside
from slotcon_tf.serving.archive import publish
from slotcon_tf.serving.warmup import signature_definitions

# Of Triton's model_config.proto.
_KINDS = {
    tf.bool: "TYPE_BOOL",
    tf.uint8: "TYPE_UINT8",
    tf.int32: "TYPE_INT32",
    tf.int64: "TYPE_INT64",
    tf.float32: "TYPE_FP32",
    tf.string: "TYPE_STRING",
}
QUEUE_MICROSECONDS = 5000  # that a request waits for others, where batches are made
STORAGE = "pvc://models/slotcon/onnx"


class Port(NamedTuple):
    """An input or an output of a model in a repository.

    Attributes:
        name: As requests have it.
        kind: tf.DType.
        dims: Without the batch's; -1 where it is not known.

    Example:
        >>> Port("image", tf.uint8, [224, 224, 3]).kind.name
        'uint8'
    """

    name: str
    kind: tf.DType
    dims: Sequence[int]


def model_config(
    name: str,
    inputs: Iterable[Port],
    outputs: Iterable[Port],
    *,
    max_batch_size: int,
    batching: bool = False,
    signature: str | None = None,
) -> str:
    """The text of a `config.pbtxt`.

    Args:
        name: Of the model, which is its folder's.
        inputs, outputs: Of the model; a number per image has no dims.
        max_batch_size: Images of one request, and of a batch.
        batching: Whether requests that come at once are computed together. All of a
            batch must be of one size: refused where an input's size is not known.
        signature: Of a SavedModel, for Triton's TensorFlow backend; None for an ONNX
            file and ONNX Runtime.

    Raises:
        ValueError: If batches are to be made of inputs of any size.

    Example:
        >>> image = Port("image", tf.uint8, [224, 224, 3])
        >>> pooled = Port("pooled", tf.float32, [512])
        >>> print(model_config("m", [image], [pooled], max_batch_size=8))
        name: "m"
        backend: "onnxruntime"
        max_batch_size: 8
        input [
          { name: "image" data_type: TYPE_UINT8 dims: [224, 224, 3] }
        ]
        output [
          { name: "pooled" data_type: TYPE_FP32 dims: [512] }
        ]
        <BLANKLINE>
    """
    inputs = list(inputs)
    backend = 'platform: "tensorflow_savedmodel"' if signature else None
    lines = [f'name: "{name}"', backend or 'backend: "onnxruntime"']
    lines.append(f"max_batch_size: {max_batch_size}")
    for what, ports in (("input", inputs), ("output", outputs)):
        lines += [f"{what} [", ",\n".join(map(_port, ports)), "]"]
    if signature:
        value = f'{{ string_value: "{signature}" }}'
        lines.append(f'parameters {{ key: "TF_SIGNATURE_DEF" value: {value} }}')
    if batching:
        if any(-1 in port.dims for port in inputs):
            raise ValueError(
                "Inputs must be of one size where requests are batched. Received: "
                f"{[port.name for port in inputs]} of any size. Give `image_size`."
            )
        delay = f"max_queue_delay_microseconds: {QUEUE_MICROSECONDS}"
        lines.append(f"dynamic_batching {{ {delay} }}")
    return "\n".join(lines) + "\n"


def _port(port):
    # Triton wants a dimension at least; the model has none beside the batch's.
    dims = ", ".join(map(str, port.dims or [1]))
    shape = "" if port.dims else " reshape: { shape: [] }"
    kind = _KINDS[tf.as_dtype(port.kind)]
    return f'  {{ name: "{port.name}" data_type: {kind} dims: [{dims}]{shape} }}'


def onnx_ports(path: pathlib.Path, edge: int) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of an ONNX file of images.

    Args:
        path: Of the file.
        edge: Of the images that it will be sent, pixels; 0 for any.

    Example:
        >>> onnx_ports(pathlib.Path("pooled.onnx"), 224)  # doctest: +SKIP
        ([Port(name='image', ...)], [Port(name='pooled', ...)])
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph

    def port(value, unknown):
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        dims = [d.dim_value or unknown for d in value.type.tensor_type.shape.dim][1:]
        return Port(value.name, tf.as_dtype(kind), dims)

    inputs = [port(value, edge or -1) for value in graph.input]
    return inputs, [port(value, -1) for value in graph.output]


def signature_ports(
    folder: pathlib.Path, signature: str
) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of a SavedModel's signature.

    Args:
        folder: Of the version.
        signature: Its name.

    Example:
        >>> signature_ports(pathlib.Path("served/1"), "embed")  # doctest: +SKIP
        ([Port(name='image_bytes', kind=tf.string, dims=[])], ...)
    """
    definition = signature_definitions(folder)[signature]

    def ports(values):
        return [
            Port(
                name,
                tf.as_dtype(info.dtype),
                [d.size for d in info.tensor_shape.dim][1:],
            )
            for name, info in sorted(values.items())
        ]

    return ports(definition.inputs), ports(definition.outputs)


def add_to_repository(
    repository: pathlib.Path,
    name: str,
    content: pathlib.Path,
    config: str,
    beside: Iterable[pathlib.Path] = (),
) -> pathlib.Path:
    """Adds a version of a model; Triton serves the newest unless its config says else.

    All versions have one config. It is there before the first of them, and changes
    after a new one is whole, and only if it says something else.

    Args:
        repository: Folder of the models.
        name: Of the model.
        content: An ONNX file, or the folder of a SavedModel; it is moved.
        config: Text of its config.pbtxt.
        beside: Files that are copied into the version; Triton passes them over.

    Returns:
        pathlib.Path of `<repository>/<name>/<next number>`.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.onnx").write_bytes(b"")
        >>> path = add_to_repository(folder / "r", "m", folder / "a.onnx", "name: 'm'")
        >>> path.name, [p.name for p in path.iterdir()]
        ('1', ['model.onnx'])
    """
    model = repository / name
    file = model / "config.pbtxt"
    with written_aside(model / "version") as aside:
        aside.mkdir()
        kind = "model.savedmodel" if content.is_dir() else "model.onnx"
        shutil.move(content, aside / kind)
        for path in beside:
            shutil.copy(path, aside)
        to_disk(aside)
        if not file.exists():
            write_text(file, config)
        version = publish(aside, model)
    if file.read_text(encoding="utf-8") != config:
        write_text(file, config)
    return version


def inference_service(name: str, storage: str = STORAGE) -> str:
    """KServe's `InferenceService` that runs a Triton repository, by protocol v2.

    Args:
        name: Of the service.
        storage: URI of the repository as the cluster finds it: pvc://, gs://, s3://.

    Returns:
        YAML.

    Example:
        >>> print(inference_service("slotcon").splitlines()[1])
        kind: InferenceService
    """
    service: dict[str, Any] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "triton", "version": "2"},
                    "protocolVersion": "v2",
                    "runtime": "kserve-tritonserver",
                    "storageUri": storage,
                    "resources": {
                        "requests": {"cpu": "2", "memory": "2Gi"},
                        "limits": {"cpu": "2", "memory": "4Gi"},
                    },
                }
            }
        },
    }
    return "\n".join(_yaml(service)) + "\n"


def _yaml(values, indent=""):
    """A dict of dicts and strings, whatever is a number or not in quotes."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _yaml(value, f"{indent}  ")
        else:
            plain = value.replace(".", "").replace("/", "").isalnum()
            quoted = json.dumps(value) if not plain or value.isdigit() else value
            yield f"{indent}{key}: {quoted}"
