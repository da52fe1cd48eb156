"""Models that cannot be built again: what is to be done, not what Keras says."""

import json

import keras
import numpy as np
import pytest

from slotcon_tf.interop import CheckpointFileError, load_pretrained
from slotcon_tf.interop.reasons import told
from slotcon_tf.runs.loading import load_trained
from tests.support.checkpoint_case import save_at, store
from tests.support.file_case import config_of, replaced
from tests.support.small_case import small_model

REFUSED = [
    ({"mean": [124, 116, 104]}, r"Received: mean=.*\. Divide grey levels by 255\."),
    (
        {"dtype": "float16"},
        "Received: dtype='float16' for .* in 'float32'",
    ),
]


@pytest.mark.parametrize(("settings", "match"), REFUSED, ids=["mean", "dtype"])
def test_a_run_is_refused_in_our_words(settings, match, tmp_path):
    """They say what to do; another checkpoint of the run would not help."""
    model = small_model()
    checkpoints = store(tmp_path / "checkpoints", model)
    save_at(checkpoints, 1)
    load_trained(tmp_path)
    path = checkpoints.latest() / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(CheckpointFileError, match=match) as caught:
        load_trained(tmp_path)
    assert str(path) in str(caught.value) and "another checkpoint" not in str(caught)


@pytest.mark.parametrize(("settings", "match"), REFUSED, ids=["mean", "dtype"])
def test_a_keras_file_is_refused_in_our_words(settings, match, tmp_path):
    path = tmp_path / "slotcon.keras"
    small_model().save(path)
    config = config_of(path.read_bytes())
    config["config"].update(settings)
    path.write_bytes(replaced(path.read_bytes(), json.dumps(config).encode()))
    with pytest.raises(CheckpointFileError, match=match) as caught:
        load_pretrained(path)
    assert "must be a whole" not in str(caught.value)


def test_a_layer_that_nobody_has_registered(tmp_path):
    class Doubling(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(4, 3)(Doubling()(inputs))
    path = tmp_path / "e.keras"
    keras.Model(inputs, outputs).save(path)
    with pytest.raises(CheckpointFileError) as caught:
        load_pretrained(path)
    message = str(caught.value)
    assert str(path) in message and "'Doubling'" in message and "\n" not in message
    assert message.endswith("registered with keras.saving.register_keras_serializable.")


def test_whose_words_they_are():
    """Not those of Keras and NumPy, though they are errors of the same class."""
    for wrong in (lambda: np.zeros(3).reshape(2), lambda: keras.layers.Dense(-1)):
        with pytest.raises(ValueError) as caught:
            wrong()
        assert told(caught.value) is None
    with pytest.raises(ValueError) as caught:
        small_model(mean=[0.5, 0.5])
    wrapped = TypeError("could not be deserialized")
    wrapped.__cause__ = caught.value
    assert told(wrapped) == str(caught.value)
