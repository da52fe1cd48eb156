"""SlotCon (arXiv 2205.15288) in Keras: groups and features from unlabelled scenes."""

from slotcon_tf import keras_backend, processor

keras_backend.need_tensorflow()  # before anything below imports Keras
processor.turn_onednn_on()  # before anything below imports TensorFlow

from slotcon_tf.encoders.resnet import BACKBONES, ResNet, backbone
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.training.optimizers import LARS, SGD
from slotcon_tf.training.schedules import WarmupCosine

__version__ = "0.2.0"
__all__ = ["BACKBONES", "LARS", "SGD", "ResNet", "SlotCon", "WarmupCosine", "backbone"]
