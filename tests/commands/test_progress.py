"""Long work shows itself: lines in a file, a bar on a terminal."""

import io
import re

import keras
import pytest
from absl import logging

from slotcon_tf import progress
from slotcon_tf.progress import Progress, Stopwatch, bar, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

        time = perf_counter

    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr("tqdm.std.time", clock.time)
    return clock


@pytest.fixture
def lines(monkeypatch):
    """What is logged, as text."""
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *a: said.append(text % a))
    return said


def train(clock, terminal, *, start=0, seconds=3.0, waits=1.0, steps=8, epochs=2):
    """Steps of 3 s, of which 1 s is waiting, behind a first one of 30 s."""
    model = keras.Model()
    model.step = keras.Variable(start, dtype="int64")
    waiting = Stopwatch()
    shown = Progress(
        batch_size=4,
        steps_per_epoch=steps,
        epochs=epochs,
        waiting=waiting,
        terminal=terminal,
    )
    shown.set_model(model)
    shown.on_train_begin()
    for step in range(start, steps * epochs):
        epoch, number = divmod(step, steps)
        shown.on_train_batch_begin(number)
        with waiting:
            clock.now += waits
        clock.now += 29.0 if step == start else seconds - waits
        model.step.assign(step + 1)
        logs = {"loss": 2.5, "agreement": 0.25, "grouping_loss": 4.0}
        shown.on_train_batch_end(number, logs)
        if number + 1 == steps:
            shown.on_epoch_end(epoch, {**logs, "val_nmi": 0.3})
    shown.on_train_end()
    shown.close()


def test_a_log_file_has_a_line_every_twenty_seconds(clock, lines):
    train(clock, terminal=False)
    assert lines[0] == "First step: traced and run in 30.0 s"
    # Seven steps of 3 s are the first to reach 20 s; the first step counts for nothing.
    assert lines[1] == (
        "Step 8 / 16, epoch 1 / 2: loss 2.5, grouping_loss 4, 1.3 images/s, "
        "33% waiting for data, 24 s left"
    )
    assert lines[2].startswith("Epoch 1 / 2: loss 2.5, agreement 0.25")
    assert "val_nmi 0.3" in lines[2]
    assert lines[3].startswith("Step 15 / 16, epoch 2 / 2") and "3 s left" in lines[3]
    assert lines[4].startswith("Epoch 2 / 2") and len(lines) == 5


def test_a_run_that_goes_on_and_slow_steps(clock, lines):
    """One line per step where a step takes longer than the interval."""
    train(clock, terminal=False, start=13, seconds=60.0, waits=0.0)
    steps = [line for line in lines if line.startswith("Step")]
    assert [re.match(r"Step (\d+)", line)[1] for line in steps] == ["15", "16"]
    assert "0.1 images/s, 0% waiting for data, 1 min 00 s left" in steps[0]


def test_a_terminal_has_a_bar_and_no_lines(clock, lines, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    train(clock, terminal=True)
    said = screen.getvalue()
    assert not lines
    assert "16/16" in said and "loss 2.5" in said and "waiting for data" in said
    assert "Epoch 1 / 2: loss 2.5" in said


def test_bars_of_other_work(clock):
    file = io.StringIO()
    for number in bar(range(6), desc="extract", unit="image", file=file):
        assert number < 6
        clock.now += 8.0
    # In a file no line is drawn over, and there are no more than one per 20 s.
    said = file.getvalue()
    assert "\r" not in said
    assert [re.search(r"(\d)/6", line)[1] for line in said.splitlines()] == ["3", "6"]
    assert said.startswith("extract:  50%")
    quick = io.StringIO()
    list(bar(range(6), file=quick, leave=False))
    assert quick.getvalue() == ""
    list(bar(range(6), file=quick))
    assert "100% 6/6" in quick.getvalue()
    screen = Terminal()
    list(bar(range(6), file=screen))
    assert "\r" in screen.getvalue() and "6/6" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
