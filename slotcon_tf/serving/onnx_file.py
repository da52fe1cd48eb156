"""An encoder as an ONNX file, for servers that are not TensorFlow's."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np

from slotcon_tf.extras import needed
from slotcon_tf.files import written_whole
from slotcon_tf.interop.keras_backbones import ImageNetNormalization
from slotcon_tf.serving.archive import serve


def export_onnx(
    model: keras.Model, path: pathlib.Path, *, which: str = "teacher"
) -> pathlib.Path:
    """Writes an ONNX file by Keras's exporter, which uses tf2onnx.

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
    with needed("onnx"):
        import onnx
        import tf2onnx  # noqa: F401  Keras's exporter calls it.
    served = serve(model, which=which)
    pyramid, own = served.pyramid_model, served.statistics
    images = keras.Input((None, None, 3), name="image")
    maps = list(
        pyramid(ImageNetNormalization(mean=own.mean, std=own.std)(images)).values()
    )[-1]
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    whole = keras.Model(images, [maps, pooled])
    whole(np.zeros((1, 64, 64, 3), np.float32))  # Keras exports what has been called
    with written_whole(path) as aside:
        whole.export(str(aside), format="onnx", verbose=False)
        onnx.save(_renamed(onnx.load(aside), ("map", "pooled")), aside)
    return path


def _renamed(model: Any, names: tuple[str, ...]) -> Any:
    """With these names of the outputs, which the exporter numbers."""
    renames = {o.name: name for o, name in zip(model.graph.output, names, strict=True)}
    for node in model.graph.node:
        node.input[:] = [renames.get(name, name) for name in node.input]
        node.output[:] = [renames.get(name, name) for name in node.output]
    for output in model.graph.output:
        output.name = renames[output.name]
    return model
