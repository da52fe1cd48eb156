"""SIGTERM where nothing is trained: the command ends, and leaves no lock."""

import dataclasses
import signal

import pytest

from slotcon_tf.runs import command as command_module
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.lock import held
from slotcon_tf.runs.settings import Config
from slotcon_tf.runs.signals import StopRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing(Config):
    """No settings."""


@pytest.mark.parametrize("trained", [False, True])
def test_a_command_ends_before_and_after_training(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command_module.os, "_exit", exit)

    def run(config):
        with held(tmp_path):
            if trained:
                with StopRequest():
                    pass
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it goes on")

    with pytest.raises(SystemExit) as ended:
        Command("wait", Nothing, run, "Waits.")(["wait"])
    assert ended.value.code == 143
    assert capsys.readouterr().err.splitlines()[-1] == "wait: Stopped by SIGTERM."
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_handlers_of_others_stay(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with pytest.raises(SystemExit) as ended:
            Command(
                "wait",
                Nothing,
                lambda config: signal.raise_signal(signal.SIGTERM),
                "Waits.",
            )(["wait"])
        assert ended.value.code == 0 and heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)
