"""Of a run the newest whole model is read, whatever was cut short."""

import os

import keras
import pytest

from slotcon_tf import LARS, SlotCon, backbone
from slotcon_tf.interop import CheckpointFileError
from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.model_config import write_model_config


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def damage(checkpoint):
    cut(checkpoint / "state.data-00000-of-00001")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    encoder = backbone("resnet18", width=4, stage_depths=(1, 1, 1, 1))
    sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
    model = SlotCon(encoder, total_steps=10, **sizes)
    model.compile(optimizer=LARS(0.1))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def run(model, tmp_path):
    """A run with checkpoints of steps 3 and 5."""
    write_model_config(tmp_path, model)
    saver = Checkpoints(
        tmp_path / "checkpoints", model, PretrainConfig(), steps_per_epoch=1, keep=2
    )
    for step in (3, 5):
        model.step.assign(step)
        saver.save({"history.csv": "epoch\n"})
    return tmp_path


def step_of_model(run):
    found, _ = load_trained(run)
    return int(found.step)


@pytest.mark.slow
def test_the_newest_whole_one_is_read(model, run, caplog):
    final = run / "slotcon.keras"
    five, three = run / "checkpoints/step_000000005", run / "checkpoints/step_000000003"
    assert step_of_model(run) == 5
    # The last step's, of a finished run: no checkpoint is needed.
    model.step.assign(7)
    model.save(final)
    assert step_of_model(run) == 7
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    cut(final)
    assert step_of_model(run) == 5
    assert "slotcon.keras is passed over: it cannot be read (" in caplog.text
    # One that is older than the newest checkpoint: the run went on.
    model.step.assign(4)
    model.save(final)
    caplog.clear()
    assert step_of_model(run) == 5 and "it is of step 4" in caplog.text
    assert step_of_model(run / "checkpoints") == 5
    damage(five)
    final.unlink()
    assert step_of_model(run) == 3
    assert f"{three} is read." in caplog.text
    # What is named by its path is read, or nothing.
    with pytest.raises(CheckpointFileError, match="step_000000005 must be a whole"):
        load_trained(five)
    damage(three)
    with pytest.raises(CheckpointFileError, match="step_000000005 must be a whole"):
        load_trained(run)


def test_a_description_is_left_where_only_names_differ(model, run):
    path = run / "model.json"
    text = path.read_text().replace('slot_con"', 'slot_con_7"')
    path.write_text(text)
    write_model_config(run, model)
    assert path.read_text() == text
    model.serving_size = 48
    write_model_config(run, model)
    assert '"serving_size": 48' in path.read_text()
    cut(path)
    write_model_config(run, model)
    assert '"serving_size": 48' in path.read_text()
    del model.serving_size
