"""SlotCon (arXiv 2205.15288) in Keras: groups and features from unlabelled scenes."""

from slotcon_tf import garbage, keras_backend, processor

keras_backend.need_tensorflow()  # before anything below imports Keras
processor.turn_onednn_on()  # before anything below imports TensorFlow

with garbage.not_collected():
    from slotcon_tf.backbones import BACKBONES, ResNet, backbone
    from slotcon_tf.optimizers import LARS, SGD
    from slotcon_tf.schedules import WarmupCosine
    from slotcon_tf.slotcon import SlotCon

__all__ = ["BACKBONES", "LARS", "SGD", "ResNet", "SlotCon", "WarmupCosine", "backbone"]
