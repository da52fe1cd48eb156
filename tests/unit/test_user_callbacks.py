"""Callbacks that users bring: what is taken, what is refused, what they are told."""

import json
import math
import signal
import sys

import keras
import pytest

from slotcon_tf.runs import FinetuneConfig, PretrainConfig, RunStopped, pretrain
from slotcon_tf.runs.callbacks import UserCallbacks
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.settings import SettingError
from tests.support.command import TINY_RUN

MODULE = """
import keras

class Own(keras.callbacks.Callback):
    def __init__(self, name="none"):
        super().__init__()
        self.name = name

    class Inner(keras.callbacks.Callback):
        pass

def of_config(config): return Own(config.workdir)
def of_nothing(): return Own()
def any_config(config=None): return Own(config.workdir)
def several(config): return [Own(), Own()]
def none(config): return []
def nothing(config): return None
def number(config): return [Own(), 3]
def fails(config): raise KeyError("no key for the service")
def lacks(config): import no_such_service
number_of = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working directory, which is not on the path."""
    (tmp_path / "my_loggers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield "my_loggers"
    sys.modules.pop("my_loggers", None)


def made(*places):
    config = PretrainConfig(workdir="runs/mine", callbacks=places)
    return list(UserCallbacks(config).made().values())


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("of_config", ["runs/mine"]),
        ("any_config", ["runs/mine"]),
        ("of_nothing", ["none"]),
        ("Own", ["none"]),
        ("several", ["none", "none"]),
        ("none", []),
    ],
)
def test_what_a_factory_may_be(module, name, names):
    before = list(sys.path)
    assert [one.name for one in made(f"{module}:{name}")] == names
    assert sys.path == before


def test_several_in_their_order_and_names_inside_of_names(module):
    found = made(f"{module}:Own.Inner", "keras.callbacks:TerminateOnNaN")
    assert [type(one).__name__ for one in found] == ["Inner", "TerminateOnNaN"]
    read = PretrainConfig.from_lines([f"--callbacks={module}:a,{module}:b"])
    assert read.callbacks == (f"{module}:a", f"{module}:b")
    assert PretrainConfig().callbacks == ()


@pytest.mark.parametrize("place", ["loggers", "a:b:c", "a b:c", ":c", "a:", "a/b.py:c"])
@pytest.mark.parametrize("config", [PretrainConfig, FinetuneConfig])
def test_what_is_no_place_is_a_mistake_in_the_settings(config, place):
    with pytest.raises(SettingError, match="must be module:factory each"):
        config(callbacks=[place])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_module:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("{}:absent", "AttributeError: module 'my_loggers' has no attribute 'absent'"),
        ("{}:number_of", "callbacks=my_loggers:number_of, int"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_written(
    module, place, said, tmp_path
):
    config = TINY_RUN.replace(
        callbacks=[place.format(module)], workdir=str(tmp_path / "run")
    )
    with pytest.raises(SettingError) as caught:
        PretrainRun(config)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_module_with_a_mistake_is_told(module, tmp_path):
    (tmp_path / "broken_one.py").write_text("1 / 0\n")
    with pytest.raises(SettingError, match="broken_one:f: ZeroDivisionError: division"):
        made("broken_one:f")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "Received: NoneType."),
        ("number", "Received: int."),
        ("fails", "Received: KeyError: 'no key for the service'."),
        ("lacks", "ModuleNotFoundError: No module named 'no_such_service'."),
    ],
)
def test_a_factory_that_fails_is_one_line(module, name, said):
    with pytest.raises(CommandError) as caught:
        made(f"{module}:{name}")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_of_several_hosts_one_has_them():
    config = PretrainConfig(callbacks=["no_such_module:f"])
    own = keras.callbacks.Callback()
    assert UserCallbacks(config, [own], used=False).made() == {}


def test_objects_must_be_callbacks():
    with pytest.raises(TypeError, match=r"callbacks must be .* Received: 3\."):
        UserCallbacks(PretrainConfig(), [3])


class Told(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def on_train_begin(self, logs=None):
        assert self.model.optimizer is not None
        self.heard.append(dict(self.params))

    def on_epoch_end(self, epoch, logs=None):
        self.heard.append({"epoch": epoch, **logs})

    def on_train_end(self, logs=None):
        self.heard.append("end")


class Stops(Told):
    """Stops training at the end of an epoch, as EarlyStopping does, or in it."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def stop(self):
        if int(self.model.step) == self.after:
            self.model.stop_training = True

    def on_train_batch_end(self, batch, logs=None):
        if self.after % 2:
            self.stop()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.stop()


@pytest.mark.slow
def test_one_that_stops_training_ends_no_run(tmp_path, untraced):
    """What it stopped is saved, nothing is made of it, and the same call goes on."""
    folder = tmp_path / "run"
    config = TINY_RUN.replace(
        workdir=str(folder), epochs=4, batch_size=2, checkpoint_epochs=4, export=False
    )
    # In an epoch it is noticed after the next step.
    for after, saved in ((2, 2), (5, 6)):
        own = Stops(after)
        with pytest.raises(RunStopped) as caught:
            pretrain(config, [own])
        told = str(caught.value)
        assert caught.value.status == 1 and "\n" not in told
        assert f"A callback stopped training after step {saved}, which is" in told
        assert f"checkpoints/step_{saved:09d}: nothing is made of" in told
        assert own.heard[-1] == "end"
        assert not (folder / "finished.json").exists()
        assert not (folder / "slots.png").exists()
    last = pretrain(config, [Stops(8)])  # at the end there is nothing to stop
    assert last.first_step == 6 and int(last.model.step) == 8
    assert json.loads((folder / "finished.json").read_text())["step"] == 8


@pytest.mark.slow
def test_they_are_told_what_tensorboard_is_told(tmp_path):
    """The example, by its place, and an object; with scores; and when it goes on."""
    own = Told()
    config = TINY_RUN.replace(
        workdir=str(tmp_path / "run"),
        epochs=2,
        export=False,
        eval_every_epochs=1,
        eval_dataset="scenes",
        eval_split="test[:4]",
        eval_images=2,
    )
    pretrain(config.replace(callbacks=["examples.loggers:json_lines"]), [own])
    params, first, second, end = own.heard
    assert params == {"epochs": 2, "steps": 2} and end == "end"
    assert first["epoch"] == 0 and math.isfinite(second["images_per_second"])
    assert {"loss", "val_miou", "prototypes_used"} <= set(second)
    rows = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [0, 1]
    assert json.loads(rows[1])["val_miou"] == second["val_miou"]
    # Another logger, or none, is no other run; a finished one calls no factory.
    pretrain(config.replace(callbacks=["examples.loggers:weights_and_biases"]))


def test_a_signal_is_their_end_too(tmp_path):
    """Once, after the save; one that fails then does not hide why."""

    class Fails(Told):
        def on_train_end(self, logs=None):
            super().on_train_end()
            raise ValueError("the tracker is away")

    class Stops(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            signal.raise_signal(signal.SIGTERM)

    own = [Fails(), Told(), Stops()]
    with pytest.raises(RunStopped, match="Stopped by a signal after step 1"):
        pretrain(TINY_RUN.replace(workdir=str(tmp_path / "run"), epochs=2), own)
    assert [one.heard[1:] for one in own[:2]] == [["end"], ["end"]]
