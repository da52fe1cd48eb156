"""Models and checkpoints of version 0.1, from before the house had rooms, still load.

`tests/golden/before_rooms*` were written by the code of commit 27e2cfb: a model with
most settings other than usual, whose n-th variable counts n, n + 1 .. modulo 13.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import LARS, SlotCon, WarmupCosine, backbone
from tests.support.golden_case import GOLDEN

FILE = GOLDEN / "before_rooms"
SETTINGS = {
    "total_steps": 10,
    "num_prototypes": 3,
    "hidden_dim": 4,
    "projection_dim": 5,
    "contrastive_temperature": 0.3,
    "accumulate_steps": 2,
    "skip_nonfinite": True,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.2, 0.2, 0.2),
    "pixel_range": (0, 4095),
}


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def check(model):
    for place, variable in enumerate(variables(model)):
        values = (np.arange(np.prod(variable.shape)) + place) % 13
        np.testing.assert_array_equal(
            variable, values.reshape(variable.shape), err_msg=variable.path
        )


@pytest.fixture(scope="module")
def loaded():
    return keras.models.load_model(FILE.with_suffix(".keras"))


def test_a_model_of_then(loaded):
    assert type(loaded) is SlotCon
    for name, value in SETTINGS.items():
        assert getattr(loaded, name) == value, name
    assert isinstance(loaded.optimizer, LARS)
    assert isinstance(loaded.optimizer._learning_rate, WarmupCosine)
    assert not loaded.encoder.get_layer("conv1_0_0").trainable
    check(loaded)


def test_a_checkpoint_of_then():
    """By the paths of tracked attributes; nothing is left over on either side."""
    encoder = backbone("resnet10_d", width=2)
    encoder.get_layer("conv1_0_0").trainable = False
    model = SlotCon(encoder, **SETTINGS)
    model.compile(LARS(WarmupCosine(peak=0.1, warmup_steps=1, total_steps=9)))
    model.optimizer.build(model.trainable_variables)
    found = tf.train.Checkpoint(model=model, optimizer=model.optimizer).read(str(FILE))
    found.assert_consumed()
    found.assert_existing_objects_matched()
    check(model)


def test_settings_that_were_not_there_yet_are_not_written(loaded):
    """So that versions before them read models of today that do not use them."""
    assert "serving_size" not in loaded.get_config()
