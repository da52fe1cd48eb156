"""Networks that map images to one channels-last feature map."""

from slotcon_tf.encoders.contract import as_encoder
from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.encoders.resnet import BACKBONES, ResNet, backbone

__all__ = ["BACKBONES", "Conv2D", "ResNet", "as_encoder", "backbone"]
