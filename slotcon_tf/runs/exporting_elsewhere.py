"""Writes a trained model for servers that are not TensorFlow's."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from slotcon_tf.files import write_text, written_aside
from slotcon_tf.runs.export_images import whitening_images
from slotcon_tf.runs.loading import serving_options
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.archive import MODEL_NAME, export_model, serve
from slotcon_tf.serving.contract import CONTRACT_FILE, TEXT_FILE, write_contract
from slotcon_tf.serving.onnx_file import write_onnx_files
from slotcon_tf.serving.triton import (
    STORAGE,
    add_to_repository,
    inference_service,
    model_config,
    onnx_ports,
    signature_ports,
)

if TYPE_CHECKING:
    from slotcon_tf.runs.export_config import ExportConfig

# Of the TensorFlow backend, unless others are asked for.
_SIGNATURE, _WHITENED = "embed", "embed_whitened"
_OF_PIXELS = ("serving_default", "pyramid")
_SERVED_FILES = ("pooled", "groups")  # ONNX files that become models of a repository


class _Ready(NamedTuple):
    """What `add_to_repository` takes, whole."""

    repository: pathlib.Path
    name: str
    content: pathlib.Path
    config: str
    beside: tuple[pathlib.Path, ...] = ()


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
        about: For the model cards, as `export_model` takes it.

    Returns:
        Path of the encoder's ONNX file, or of the folder of the repositories:
        `onnx/` for ONNX Runtime, `savedmodel/` for TensorFlow's backend, which decodes
        files itself, with a model for each of the config's `signatures`.

    Raises:
        SettingError: If a signature takes decoded pixels, which `onnx/` is for.

    Example:
        >>> from slotcon_tf.runs import ExportConfig
        >>> config = ExportConfig(model="m", export_dir="out", format="onnx")
        >>> export_elsewhere(None, config, None)  # doctest: +SKIP
    """
    folder = pathlib.Path(config.export_dir)
    served = serve(model, which=config.which, options=_options(model, config))
    if config.format == "onnx":
        files = write_onnx_files(served, folder)
        write_contract(folder, served, files, images)
        print(f"Written: {', '.join(str(path) for path in files.values())}")
        return files["encoder"]
    default = (_SIGNATURE, _WHITENED) if config.whiten else (_SIGNATURE,)
    names = config.signatures or default
    _check_files(names)
    # All that can fail comes first: the repositories go on together.
    with written_aside(folder / "parts") as aside:
        ready = _onnx_models(folder, aside, served, config, images)
        ready += [
            _saved_model(folder, aside, model, config, about, name) for name in names
        ]
        contract = {n: (aside / n).read_text() for n in (CONTRACT_FILE, TEXT_FILE)}
        for one in ready:
            add_to_repository(*one)
    for name, text in contract.items():
        write_text(folder / name, text)
    print(f"Written: {folder / 'onnx'}, {folder / 'savedmodel'}")
    if config.format == "kserve":
        path = folder / "inference_service.yaml"
        text = inference_service(MODEL_NAME, config.storage_uri or STORAGE)
        write_text(path, text)
        print(f"Written: {path}")
    return folder


def _options(model, config, signatures=()):
    return serving_options(
        model,
        config.image_size,
        config.mask_size,
        signatures=signatures,
        **config.limits(),
    )["options"]


def _limits(model, config):
    sizes = serving_options(model, batch_sizes=config.batch_sizes)["warmup_batches"]
    return {"max_batch_size": max(sizes, default=1), "batching": config.batching}


def _check_files(names):
    for name in names:
        if name in _OF_PIXELS:
            raise SettingError(
                "`signatures` of a model repository must take files; onnx/ has what "
                f"takes pixels. Received: signatures={name}."
            )


def _onnx_models(folder, aside, served, config, images):
    files = write_onnx_files(served, aside)
    write_contract(aside, served, files, images)
    found = []
    for name in _SERVED_FILES:
        if name in files:
            full = f"{MODEL_NAME}_{name}"
            ports = onnx_ports(files[name], served.options.image_size)
            text = model_config(full, *ports, **_limits(served, config))
            beside = (aside / CONTRACT_FILE, aside / TEXT_FILE)
            found.append(_Ready(folder / "onnx", full, files[name], text, beside))
    return found


def _saved_model(folder, aside, model, config, about, name):
    """A version with one signature: Triton's models have one each."""
    size = _options(model, config).image_size
    count = config.whiten if name == _WHITENED else 0
    calibration = config.calibration_images
    saved = export_model(
        model,
        aside / f"saved_{name}",
        which=config.which,
        options=_options(model, config, (name,)),
        whiten=whitening_images(model, config.model, calibration, count, size),
        about=about,
        verified=config.verify,
    )
    full, ports = f"{MODEL_NAME}_{name}", signature_ports(saved, name)
    text = model_config(full, *ports, signature=name, **_limits(model, config))
    return _Ready(folder / "savedmodel", full, saved, text)
