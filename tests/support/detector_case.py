"""A tiny detector with statistics as if it had been trained."""

import keras
import numpy as np

from slotcon_tf import backbone
from slotcon_tf.detection import MaskRCNN

SIZES = {  # of every tiny detector: arguments of `MaskRCNN`, and settings of a run
    "channels": 8,
    "units": 16,
    "proposals": (50, 30),
    "test_proposals": (50, 30),
    "anchors_per_image": 16,
    "regions_per_image": 16,
    "max_detections": 5,
}


def small_detector(seed=0, **settings):
    """A `MaskRCNN` on a narrow ResNet-10 that finds something in every image."""
    keras.utils.set_random_seed(seed)
    settings = {"class_names": ("cat", "dog", "cow"), **SIZES, **settings}
    model = MaskRCNN(backbone("resnet10", width=8), **settings)
    dice = np.random.default_rng(seed)
    for variable in model.variables:
        name, shape = variable.path.rpartition("/")[2], variable.shape
        if name == "moving_mean":
            variable.assign(0.1 * dice.standard_normal(shape))
        elif name in ("moving_variance", "gamma"):
            variable.assign(dice.uniform(0.7, 1.3, shape))
    # Boxes differ in their scores, so that none is a matter of rounding.
    for layer in (model.proposal_head.logits, model.box_head.logits):
        layer.kernel.assign(20 * layer.kernel)
    model.step.assign(7)
    return model
