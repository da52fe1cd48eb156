"""An encoder and its groups as ONNX files, for servers that are not TensorFlow's."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.extras import needed
from slotcon_tf.files import written_whole
from slotcon_tf.method.upsampled import upsampled_confidence
from slotcon_tf.serving.archive import DEFAULTS, serve
from slotcon_tf.serving.signatures import ServedModel, ServingOptions

OPSET = 17  # of ONNX Runtime 1.13 and later

OnnxFunctions = dict[str, tuple[Callable[[Any], dict[str, Any]], tf.TensorSpec]]


def export_onnx(
    model: keras.Model, path: pathlib.Path, *, which: str = "teacher"
) -> pathlib.Path:
    """Writes the encoder as an ONNX file, by tf2onnx.

    Args:
        model: A `SlotCon`, or a functional Keras model of an encoder.
        path: pathlib.Path of the file. It takes `image` float32 (N, H, W, 3), grey
            levels 0 to 255 of any size, and gives `map` (N, h, w, C) and `pooled`
            (N, C).
        which: "teacher" or "student" of a `SlotCon`.

    Returns:
        The path.

    Raises:
        MissingExtra: If the packages of slotcon_tf[onnx] are not there.

    Example:
        >>> from slotcon_tf import backbone
        >>> export_onnx(backbone("resnet18"), pathlib.Path("e.onnx"))  # doctest: +SKIP
        PosixPath('e.onnx')
    """
    _check_packages()
    return write_onnx(path, *onnx_functions(serve(model, which=which))["encoder"])


def export_onnx_files(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    which: str = "teacher",
    options: ServingOptions = DEFAULTS,
) -> dict[str, pathlib.Path]:
    """Writes `<name>.onnx` for each of `onnx_functions` into a folder.

    Args:
        model: A `SlotCon`, or a functional Keras model of an encoder.
        folder: Where to; it is made.
        which: "teacher" or "student" of a `SlotCon`.
        options: Sizes of squares and masks.

    Returns:
        Dict of name to path.

    Raises:
        MissingExtra: If the packages of slotcon_tf[onnx] are not there.

    Example:
        >>> from slotcon_tf import backbone
        >>> list(export_onnx_files(backbone("resnet18"), "o"))  # doctest: +SKIP
        ['encoder', 'pooled', 'pooled_normalized']
    """
    _check_packages()
    return write_onnx_files(serve(model, which=which, options=options), folder)


def write_onnx_files(
    served: ServedModel, folder: str | os.PathLike[str]
) -> dict[str, pathlib.Path]:
    """`export_onnx_files` of what is served already.

    Args:
        served: The `ServedModel`.
        folder: Where to; it is made.

    Returns:
        Dict of name to path.

    Raises:
        MissingExtra: If the packages of slotcon_tf[onnx] are not there.

    Example:
        >>> from slotcon_tf import backbone
        >>> served = serve(backbone("resnet18"))  # doctest: +SKIP
        >>> list(write_onnx_files(served, "o"))  # doctest: +SKIP
        ['encoder', 'pooled', 'pooled_normalized']
    """
    _check_packages()
    return {
        name: write_onnx(pathlib.Path(folder) / f"{name}.onnx", function, spec)
        for name, (function, spec) in onnx_functions(served).items()
    }


def onnx_functions(served: ServedModel) -> OnnxFunctions:
    """What ONNX files compute: everything behind the decoding of files.

    Args:
        served: The `ServedModel`.

    Returns:
        Dict of name to (function, its input):
        "encoder": `image` float32 (N, H, W, 3), grey levels of any size, to `map`
        (N, h, w, C) and `pooled` (N, C);
        "pooled": `image` uint8 (N, H, W, 3) to `pooled`;
        "pooled_normalized": `pixels` float32 (N, H, W, 3), normalised already, to
        `pooled`;
        "groups", where there are heads: `image` uint8 (N, S, S, 3), whole images
        stretched to the square, to `assignments` int32 and `confidence`, both
        (N, mask, mask).

    Example:
        >>> images = keras.Input((None, None, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3, 2)(images))
        >>> function, image = onnx_functions(serve(encoder))["pooled"]
        >>> image.dtype, function(tf.zeros([2, 9, 9, 3], image.dtype))["pooled"].shape
        (tf.uint8, TensorShape([2, 4]))
    """

    def final_map(pixels):
        levels = served.pyramid_model(pixels, training=False)
        return tf.cast(list(levels.values())[-1], tf.float32)

    def normalized(image):
        return served.statistics.normalize(tf.cast(image, tf.float32))

    def pooled_normalized(pixels):
        return {"pooled": tf.reduce_mean(final_map(pixels), axis=[1, 2])}

    def pooled(image):
        return pooled_normalized(normalized(image))

    def encoder(image):
        maps = final_map(normalized(image))
        return {"map": maps, "pooled": tf.reduce_mean(maps, axis=[1, 2])}

    def groups(image):
        maps = final_map(normalized(image))
        projected = served.heads.projector(maps, training=False)
        logits = served.heads.grouping(tf.cast(projected, tf.float32))
        size = [served.options.mask_size] * 2
        winners, confidence = upsampled_confidence(logits, size, served.temperature)  # pyright: ignore[reportArgumentType]
        return {"assignments": winners, "confidence": confidence}

    any_size = [None, None, None, 3]
    found: OnnxFunctions = {
        "encoder": (encoder, tf.TensorSpec(any_size, tf.float32, "image")),
        "pooled": (pooled, tf.TensorSpec(any_size, tf.uint8, "image")),
        "pooled_normalized": (
            pooled_normalized,
            tf.TensorSpec(any_size, tf.float32, "pixels"),
        ),
    }
    if served.heads is not None:
        edge = served.options.image_size or None
        spec = tf.TensorSpec([None, edge, edge, 3], tf.uint8, "image")
        found["groups"] = (groups, spec)
    return found


def write_onnx(
    path: pathlib.Path, function: Callable[[Any], Any], spec: tf.TensorSpec
) -> pathlib.Path:
    """Writes a function of one tensor, with its variables as constants.

    Args:
        path: Of the file.
        function: Of a tensor, to a dict of tensors; its keys name the outputs.
        spec: What it takes; its name is the input's.

    Returns:
        The path.

    Raises:
        MissingExtra: If the packages of slotcon_tf[onnx] are not there.

    Example:
        >>> numbers = tf.TensorSpec([None], tf.float32, "x")
        >>> half = lambda x: {"y": x / 2}
        >>> write_onnx(pathlib.Path("half.onnx"), half, numbers)  # doctest: +SKIP
        PosixPath('half.onnx')
    """
    with needed("onnx"):
        import onnx
        import tf2onnx
    traced = tf.function(function, input_signature=[spec], autograph=False)
    found, _ = tf2onnx.convert.from_function(
        traced, [spec], opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
    )
    onnx.checker.check_model(found)
    with written_whole(path) as aside:
        onnx.save(found, aside)
    return path


def _check_packages():
    """Before anything is computed."""
    with needed("onnx"):
        import onnx  # noqa: F401
        import tf2onnx  # noqa: F401


def _erfc(graph, node, name, _):
    """TensorFlow's Erfc, of the projector's GELU, as 1 - Erf, which ONNX has.

    Where it is small, the difference of two numbers near 1 is off by 1e-7; GELU takes
    it times x.
    """
    one = graph.make_const(f"{name}_one", np.float32(1)).output[0]
    near = graph.make_node("Erf", list(node.input)).output[0]
    shapes = [graph.get_shape(output) for output in node.output]
    kinds = [graph.get_dtype(output) for output in node.output]
    graph.remove_node(node.name)
    graph.make_node(
        "Sub", [one, near], name=name, outputs=node.output, shapes=shapes, dtypes=kinds
    )
