"""What a client must do to an image file where the decoder is not in the graph.

Written beside ONNX files as `contract.json` and as text; examples/clients/decode.py
does it with Pillow and numpy alone.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.data.drawing import draw_scene
from slotcon_tf.files import write_text
from slotcon_tf.images.squares import EVALUATION_CROP
from slotcon_tf.serving.onnx_file import onnx_functions
from slotcon_tf.serving.precision import distance
from slotcon_tf.serving.signatures import ServedModel

CONTRACT_FILE, TEXT_FILE = "contract.json", "README.md"
_DRAWN = 8  # images that distances are measured on where there are no others

_ANY_SIZE = "the files take images of any size, one size a request; these are usual"
_TEXT = """\
# ONNX files, and what they are to be fed

Nothing here decodes files: the client does, as [`contract.json`](contract.json) says
it, and `examples/clients/decode.py` of slotcon_tf does, with Pillow and numpy alone.

1. **Decode** the first frame of the file to 8-bit RGB. Grey and palette images become
   RGB; transparency is dropped, not blended; 16-bit values are {pixel_range}.
2. **Upright**: turn and mirror by the EXIF orientation.
3. **Resize** with Pillow's `BILINEAR` (antialias, as torchvision's `Resize` on a PIL
   image has it):
   - `pooled.onnx`, `pooled_normalized.onnx`, `encoder.onnx`: the shorter edge to
     {resized}, the longer one in proportion, rounded down; then the centre
     {size} x {size}, its corner rounded half to even.
   - `groups.onnx`: the whole image to {size} x {size}, not in proportion.
4. **Layout**: uint8 (N, {size}, {size}, 3), rows from the top, red first.
   `encoder.onnx` takes the same as float32, 0 to 255. `pooled_normalized.onnx` takes
   `(x - 255 mean) / (255 std)`, with mean {mean}
   and std {std}; the others normalise themselves.

| file | in | out |
| --- | --- | --- |
{table}

Distance from TensorFlow on {images} images: {distance}.
"""


def write_contract(
    folder: str | os.PathLike[str],
    served: ServedModel,
    files: dict[str, pathlib.Path],
    images: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes what clients of ONNX files must do, and how far the files are off.

    Args:
        folder: Where to.
        served: What the files were made of.
        files: Dict of name to path, as `export_onnx_files` gives it.
        images: uint8 (M, S, S, 3) to measure on; drawn scenes by default.

    Returns:
        What stands in contract.json.

    Example:
        >>> import keras, tempfile
        >>> from slotcon_tf.serving import serve
        >>> inputs = keras.Input((None, None, 3))
        >>> encoder = keras.Model(inputs, keras.layers.Conv2D(4, 3, 2)(inputs))
        >>> found = write_contract(tempfile.mkdtemp(), serve(encoder), {})
        >>> found["squares"]["pooled"]
        {'how': 'evaluation', 'shorter_edge': 256, 'size': 224}
    """
    size = served.options.image_size or 224
    shorter = round(size / EVALUATION_CROP)
    functions = onnx_functions(served)
    statistics = served.statistics
    contract = {
        "frame": "first",
        "orientation": "by EXIF",
        "transparency": "dropped",
        "pixel_range": statistics.pixel_range,
        "resize": "Pillow's BILINEAR",
        "squares": {
            "pooled": {"how": "evaluation", "shorter_edge": shorter, "size": size},
            "groups": {"how": "stretched", "size": size},
        },
        "layout": "uint8 (N, size, size, 3), RGB",
        **({} if served.options.image_size else {"any_size": _ANY_SIZE}),
        "mean": list(statistics.mean),
        "std": list(statistics.std),
        "files": {name: f"{name}.onnx" for name in files},
        "distance": measured(served, files, images),
    }
    folder = pathlib.Path(folder)
    write_text(folder / CONTRACT_FILE, json.dumps(contract, indent=2) + "\n")
    rows = (f"| `{name}.onnx` | {_row(*functions[name])} |" for name in files)
    low_high = statistics.pixel_range
    text = _TEXT.format(
        size=size,
        resized=shorter,
        mean=statistics.mean,
        std=statistics.std,
        pixel_range=(
            "clipped to {:g} .. {:g}, and\n   stretched from there to 0 .. 255".format(
                *low_high
            )
            if low_high
            else "divided by\n   the least of 255, 1023, 4095, 16383, 65535 that holds "
            "them, times 255"
        ),
        table="\n".join(rows),
        images=contract["distance"]["images"],
        distance=_told(contract["distance"]),
    )
    write_text(folder / TEXT_FILE, text)
    return contract


def measured(
    served: ServedModel,
    files: dict[str, pathlib.Path],
    images: np.ndarray | None = None,
) -> dict[str, Any]:
    """How far ONNX Runtime's answers are from TensorFlow's.

    Args:
        served, files, images: As of `write_contract`.

    Returns:
        Dict of `images`, their number, and for each file that of pooled features (see
        `slotcon_tf.serving.precision.distance`), or the share of equal assignments; of
        `images` = 0 alone where onnxruntime is not installed.

    Example:
        >>> measured(None, {}, np.zeros((3, 8, 8, 3), np.uint8))["images"] in (0, 3)
        True
    """
    try:
        import onnxruntime
    except ImportError:
        return {"images": 0}
    if images is None:
        size = served.options.image_size or 224
        dice = [np.random.default_rng(i) for i in range(_DRAWN)]
        images = np.stack([draw_scene(one, size, size)[0] for one in dice])
    found: dict[str, Any] = {"images": len(images)}
    functions = onnx_functions(served) if files else {}
    for name, path in files.items():
        function, spec = functions[name]
        value = images
        if spec.name == "pixels":
            value = served.statistics.normalize(images.astype("float32")).numpy()
        value = value.astype(spec.dtype.as_numpy_dtype)
        exact = {key: x.numpy() for key, x in function(value).items()}
        session = onnxruntime.InferenceSession(path)
        answers = session.run(list(exact), {spec.name: value})
        answer = dict(zip(exact, answers, strict=True))
        if "assignments" in exact:
            same = answer["assignments"] == exact["assignments"]
            found[name] = {"equal_assignments": float(np.mean(same))}
        else:
            found[name] = distance(np.asarray(answer["pooled"]), exact["pooled"])
    return found


def _row(function, spec):
    outputs = ", ".join(f"`{name}`" for name in _outputs(function, spec))
    shape = ", ".join("any" if n is None else str(n) for n in spec.shape[1:])
    return f"`{spec.name}` {spec.dtype.name} (N, {shape}) | {outputs}"


def _outputs(function, spec):
    return (
        tf.function(function, [spec], autograph=False)
        .get_concrete_function()
        .structured_outputs
    )


def _told(found):
    """Distances as a sentence."""
    if not found["images"]:
        return "not measured, onnxruntime was not installed"
    parts = []
    for name, values in found.items():
        if name != "images":
            numbers = ", ".join(
                f"{key.replace('_', ' ')} {value:.3g}" for key, value in values.items()
            )
            parts.append(f"`{name}` {numbers}")
    return "; ".join(parts)
