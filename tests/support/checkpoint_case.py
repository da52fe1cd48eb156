"""Checkpoints of the smallest model."""

from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.checkpoints import Checkpoints
from tests.support.small_case import small_model

CONFIG = PretrainConfig(batch_size=4)


def store(folder, model=None, config=CONFIG, **options):
    model = model or small_model()
    model.optimizer.build(model.trainable_variables)
    options = {"steps_per_epoch": 2, "keep": 2, **options}
    return Checkpoints(folder, model, config, **options)


def save_at(checkpoints, *steps):
    for step in steps:
        checkpoints.model.step.assign(step)
        checkpoints.save()
