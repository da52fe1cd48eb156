"""model.json: what a run's model is built of again, beside its weights."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from typing import Any

import keras

from slotcon_tf.detection import MaskRCNN
from slotcon_tf.files import write_text
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.segmentation import Segmenter

MODEL_CONFIG = "model.json"
_CLASS = "class"  # not there in files of the days when there was one
_NUMBERED = re.compile(r"_\d+(?=[\"/])")  # "conv2d_7", the seventh of a process
_MODELS = {model.__name__: model for model in (SlotCon, Segmenter, MaskRCNN)}


def write_model_config(folder: pathlib.Path, model: keras.Model) -> None:
    """Writes the configuration of a run's model.

    A file that differs in names alone is left: those of layers count the models that a
    process has made.

    Args:
        folder: A work directory, or the folder of a checkpoint.
        model: A `SlotCon`, a `Segmenter` or a `MaskRCNN`.

    Example:
        >>> import tempfile, types
        >>> model = types.SimpleNamespace(get_config=lambda: {"num_prototypes": 8})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_model_config(pathlib.Path(folder), model)
        ...     print(*(path.name for path in pathlib.Path(folder).iterdir()))
        model.json
    """
    path = folder / MODEL_CONFIG
    config = {_CLASS: type(model).__name__, **model.get_config()}
    text = json.dumps(config, indent=2) + "\n"
    with contextlib.suppress(OSError, ValueError):
        if _NUMBERED.sub("", path.read_text()) == _NUMBERED.sub("", text):
            return
    write_text(path, text)


def model_of(config: pathlib.Path) -> keras.Model:
    """The model that a file of `write_model_config` describes, with random weights.

    Raises:
        OSError, ValueError, TypeError: If it cannot be read, or describes none.

    Example:
        >>> import tempfile
        >>> from slotcon_tf import backbone
        >>> encoder, sizes = backbone("resnet10", width=4), {"hidden_dim": 8}
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> write_model_config(folder, SlotCon(encoder, total_steps=1, **sizes))
        >>> model_of(folder / MODEL_CONFIG).hidden_dim
        8
    """
    settings: Any = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError("no JSON object")
    name = settings.pop(_CLASS, SlotCon.__name__)
    if name not in _MODELS:
        raise ValueError(f"a model of the class {name!r}, not {' or '.join(_MODELS)}")
    return _MODELS[name].from_config(settings)
