"""SlotCon (arXiv 2205.15288) in Keras: groups and features from unlabelled scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slotcon_tf import garbage, keras_backend, processor
from slotcon_tf.lazy import lazy_names

keras_backend.need_tensorflow()  # before anything below imports Keras
processor.turn_onednn_on()  # before anything below imports TensorFlow

with garbage.not_collected():
    from slotcon_tf import presets
    from slotcon_tf.encoders import BACKBONES, ResNet, backbone
    from slotcon_tf.method import SlotCon
    from slotcon_tf.training import LARS, SGD, WarmupCosine

__version__ = "0.2.0"

if TYPE_CHECKING:
    from slotcon_tf import data, evaluation, interop, segmentation, visualize
    from slotcon_tf.data import crop_pair_dataset, open_source
    from slotcon_tf.segmentation import Segmenter

__all__ = [
    "BACKBONES",
    "LARS",
    "SGD",
    "ResNet",
    "Segmenter",
    "SlotCon",
    "WarmupCosine",
    "backbone",
    "crop_pair_dataset",
    "data",
    "evaluation",
    "interop",
    "open_source",
    "segmentation",
    "visualize",
]

# Imported when they are first asked for: names of rooms, and rooms.
_PLACES = {
    "Segmenter": "segmentation",
    "crop_pair_dataset": "data",
    "open_source": "data",
    **dict.fromkeys(("data", "evaluation", "interop", "segmentation", "visualize")),
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)


def _store() -> presets.Store:
    from slotcon_tf.interop import pretrained

    return pretrained


presets.register_store(_store)
