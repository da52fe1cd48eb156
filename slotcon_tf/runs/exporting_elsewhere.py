"""Writes a trained model for servers that are not TensorFlow's."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from slotcon_tf.files import write_text, written_aside
from slotcon_tf.runs.loading import serving_options
from slotcon_tf.serving.archive import MODEL_NAME, export_model, serve
from slotcon_tf.serving.contract import write_contract
from slotcon_tf.serving.onnx_file import export_onnx_files
from slotcon_tf.serving.triton import (
    STORAGE,
    add_to_repository,
    inference_service,
    model_config,
    onnx_ports,
    signature_ports,
)

if TYPE_CHECKING:
    from slotcon_tf.runs.exporting import ExportConfig

_OF_FILES = ("embed", "image_bytes")  # the signature of the TensorFlow backend
_SERVED_FILES = ("pooled", "groups")  # ONNX files that become models of a repository


def export_elsewhere(
    model: keras.Model,
    config: ExportConfig,
    images: np.ndarray | None,
    about: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes ONNX files, or model repositories made of them; prints where.

    Args:
        model: A `SlotCon` or an encoder.
        config: Its `format` is onnx, triton or kserve.
        images: uint8 (M, S, S, 3) that distances are measured on, or None.
        about: Of the model card of the SavedModel; see `export_model`.

    Returns:
        Path of the encoder's ONNX file, or of the folder of the repositories:
        `onnx/` for ONNX Runtime, `savedmodel/` for TensorFlow's backend, which decodes
        files itself.

    Example:
        >>> from slotcon_tf.runs import ExportConfig
        >>> config = ExportConfig(model="m", export_dir="out", format="onnx")
        >>> export_elsewhere(None, config, None)  # doctest: +SKIP
    """
    folder = pathlib.Path(config.export_dir)
    options = serving_options(model, config.image_size, config.mask_size)["options"]
    served = serve(model, which=config.which, options=options)
    if config.format == "onnx":
        files = export_onnx_files(model, folder, which=config.which, options=options)
        write_contract(folder, served, files, images)
        print(f"Written: {', '.join(str(path) for path in files.values())}")
        return files["encoder"]
    sizes = serving_options(model, batch_sizes=config.batch_sizes)["warmup_batches"]
    limits = {"max_batch_size": max(sizes, default=1), "batching": config.batching}
    with written_aside(folder / "parts") as aside:
        files = export_onnx_files(model, aside, which=config.which, options=options)
        write_contract(folder, served, files, images)
        for name in _SERVED_FILES:
            if name in files:
                ports = onnx_ports(files[name], options.image_size)
                full = f"{MODEL_NAME}_{name}"
                text = model_config(full, *ports, **limits)
                add_to_repository(folder / "onnx", full, files[name], text)
        saved = export_model(
            model,
            aside / "saved",
            which=config.which,
            options=options,
            warmup_batches=(),
            about=about,
        )
        name = next(name for name in _OF_FILES if name in served.signatures())
        ports, full = signature_ports(saved, name), f"{MODEL_NAME}_{name}"
        text = model_config(full, *ports, signature=name, **limits)
        add_to_repository(folder / "savedmodel", full, saved, text)
    print(f"Written: {folder / 'onnx'}, {folder / 'savedmodel'}")
    if config.format == "kserve":
        path = folder / "inference_service.yaml"
        text = inference_service(MODEL_NAME, config.storage_uri or STORAGE)
        write_text(path, text)
        print(f"Written: {path}")
    return folder
