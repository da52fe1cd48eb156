"""Weights of other libraries in, and weights for them out."""

from slotcon_tf.interop.entries import Report
from slotcon_tf.interop.keras_backbones import keras_cv_backbone, keras_hub_backbone
from slotcon_tf.interop.loading import load_encoder, load_slotcon
from slotcon_tf.interop.pickles import CheckpointFileError, UnsafePickleError
from slotcon_tf.interop.pretrained import copy_weights, load_pretrained
from slotcon_tf.interop.saving import TARGETS, save_encoder, save_slotcon

__all__ = [
    "TARGETS",
    "CheckpointFileError",
    "Report",
    "UnsafePickleError",
    "copy_weights",
    "keras_cv_backbone",
    "keras_hub_backbone",
    "load_encoder",
    "load_pretrained",
    "load_slotcon",
    "save_encoder",
    "save_slotcon",
]
