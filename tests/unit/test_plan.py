"""Plans: what they would change and why, and what they know of the machine."""

import dataclasses
import datetime
import json
import os
import shutil
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import machine
from slotcon_tf.machine import Memory
from slotcon_tf.runs import DetectionConfig, FinetuneConfig, Plan, PretrainConfig
from slotcon_tf.runs.advice import advise, saving_memory
from slotcon_tf.runs.loop import try_steps
from slotcon_tf.runs.plan_steps import _bytes_in
from slotcon_tf.runs.run_plan import Disk
from slotcon_tf.training.callbacks import NanGuard, NonFiniteError

GIB = 2**30
CONFIG = PretrainConfig(dataset="folder", precision="float32", batch_size=512)
DISK = Disk(
    folder="/data",
    writable=True,
    checkpoint=700 * 2**20,
    checkpoints=4,
    models=GIB,
    there=0,
    free=100 * GIB,
)
# One GPU that is busy and not full, steps that wait for nothing.
PLAN = Plan(
    workdir="runs/coco",
    images="coco: 118287 images",
    num_images=118_287,
    batch_size=512,
    replicas=1,
    device="GPU",
    gpus=1,
    cores=16,
    best_precision="float32",
    first_step=0,
    steps_per_epoch=231,
    epochs=800,
    steps_taken=10,
    first_seconds=60.0,
    step_seconds=0.5,
    waiting_share=0.01,
    evaluation_seconds=None,
    evaluation_epochs=1,
    memory=(Memory("host", 8 * GIB, 64 * GIB), Memory("GPU:0", 50 * GIB, 80 * GIB)),
    disk=DISK,
    now=datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC),
)


def advice(plan=PLAN, config=CONFIG, **facts):
    """Flags, and what else a plan with other facts asks for."""
    return [one.what for one in advise(config, dataclasses.replace(plan, **facts))]


def full(*shares):
    names = ("host", "GPU:0")
    return tuple(
        Memory(name, int(share * 64 * GIB), 64 * GIB)
        for name, share in zip(names, shares, strict=False)
    )


def test_nothing_is_to_be_changed_where_all_is_well():
    assert not advice()
    assert "Nothing is to be changed." in str(PLAN)


def test_a_full_memory_asks_for_the_mildest_first():
    assert advice(memory=full(0.1, 0.95)) == [
        "--remat",
        "--accumulate_steps=2",
        "--batch_size=256",
    ]
    again = CONFIG.replace(remat=True, accumulate_steps=2, batch_size=12)
    found = advice(config=again, memory=full(0.1, 0.95), batch_size=12)
    assert found == ["--accumulate_steps=4", "--batch_size=6"]
    # On a CPU the step's memory is the host's; elsewhere it is the input's.
    assert advice(device="CPU", memory=full(0.95))[0] == "--remat"
    assert advice(memory=full(0.95, 0.7)) == ["more host memory"]


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("batch", [4, 6, 12, 96, 500, 512])
@pytest.mark.parametrize("parts", [1, 2])
def test_what_saves_memory_is_accepted(replicas, batch, parts):
    if batch % (replicas * parts):
        return
    config = CONFIG.replace(batch_size=batch, accumulate_steps=parts)
    for change in saving_memory(config, replicas):
        better = config.replace(**{change.setting: change.value})
        assert better != config
        better.check_batch(replicas * better.accumulate_steps, "parts")
        assert change.flag in better.lines()


def test_finetuning_has_a_smaller_batch_only():
    (change,) = saving_memory(FinetuneConfig(data_dir="voc"), replicas=2)
    assert change.flag == "--batch_size=8" and "does not follow" in change.reason


def test_an_empty_gpu_needs_no_savings():
    memory = full(0.1, 0.2)
    assert advice(config=CONFIG.replace(remat=True), memory=memory) == ["--noremat"]
    parts = CONFIG.replace(accumulate_steps=4)
    assert advice(config=parts, memory=memory) == ["--accumulate_steps=1"]
    (change,) = advise(CONFIG, dataclasses.replace(PLAN, memory=memory))
    assert change.flag == "--batch_size=1024"
    assert "another recipe" in change.reason and "base_lr is scaled" in change.reason
    assert not advice(memory=(Memory("host", None, None), Memory("GPU:0", 1, None)))


def test_waiting_for_data_names_what_the_input_would_need():
    found = advise(CONFIG, dataclasses.replace(PLAN, waiting_share=0.5))
    assert [one.what for one in found] == [
        "--augment_on=device",
        "--dataset=records",
        "about 32 cores",
    ]
    assert "50% of the time" in found[0].reason
    assert "1024 images/s on 16 core(s), the steps could take 2048" in found[0].reason
    records = CONFIG.replace(dataset="records", augment_on="device")
    assert advice(config=records, waiting_share=0.5) == ["about 32 cores"]
    assert not advice(waiting_share=None)


def test_devices_that_could_do_more():
    alone = CONFIG.replace(strategy="one_device")
    assert advice(config=alone, gpus=4) == ["--strategy=mirrored"]
    assert advice(best_precision="mixed_bfloat16") == ["--precision=mixed_bfloat16"]
    plan = dataclasses.replace(PLAN, best_precision="mixed_bfloat16")
    (change,) = advise(DetectionConfig(data_dir="data"), plan)
    assert change.reason.endswith("bfloat16 by itself; the protocol is of float32")
    slow = CONFIG.replace(precision="mixed_bfloat16")
    assert advice(config=slow) == ["--precision=float32"]
    plain = CONFIG.replace(jit_compile="false")
    assert advice(config=plain) == ["--jit_compile=auto"]
    assert not advice(config=plain, device="CPU", gpus=0, memory=full(0.1))


def test_checkpoints_that_are_seldom_or_all_the_time():
    assert advice(steps_per_epoch=20_000) == ["--checkpoint_minutes=30"]
    often = CONFIG.replace(checkpoint_minutes=20)
    assert not advice(config=often, steps_per_epoch=20_000)
    (change,) = advise(CONFIG, dataclasses.replace(PLAN, steps_per_epoch=4))
    assert change.setting == "checkpoint_epochs" and 1 < change.value < 800
    assert "700 MiB every 2.0 s" in change.reason


def test_a_disk_that_is_too_small_is_said_first():
    small = dataclasses.replace(DISK, free=2 * GIB)
    found = advise(CONFIG, dataclasses.replace(PLAN, disk=small, waiting_share=0.5))
    assert [one.what for one in found[:2]] == ["more disk", "--keep_checkpoints=1"]
    assert "3.7 GiB are needed" in found[0].reason
    assert not small.fits and dataclasses.replace(small, there=3 * GIB).fits
    assert "another workdir" in advice(disk=dataclasses.replace(DISK, writable=False))


def test_data_that_is_no_more_than_a_batch_and_a_warm_up_without_an_end():
    few = advice(num_images=600, steps_per_epoch=1)
    assert "--batch_size=150" in few
    short = CONFIG.replace(epochs=4, warmup_epochs=5)
    assert advice(config=short, epochs=4) == ["--warmup_epochs=0.4"]


def test_a_run_that_has_begun_keeps_what_its_numbers_hang_on():
    plan = dataclasses.replace(PLAN, first_step=231, memory=full(0.1, 0.95))
    remat, parts, _ = advise(CONFIG, plan)
    assert "a new run only" not in remat.reason.lower()
    assert parts.reason.endswith("Of a new run only: this one has begun.")


def test_times_follow_from_the_steps():
    assert PLAN.images_per_second == 1024 and PLAN.steps_left == 184_800
    assert PLAN.epoch_seconds == 115.5
    assert PLAN.seconds_left == pytest.approx(60 + 184_799 * 0.5)
    assert (PLAN.end - PLAN.now).total_seconds() == pytest.approx(PLAN.seconds_left)
    measured = dataclasses.replace(PLAN, evaluation_seconds=30, evaluation_epochs=10)
    assert measured.epoch_seconds == 118.5
    done = dataclasses.replace(PLAN, first_step=184_800, step_seconds=None)
    assert done.seconds_left == 0 and "done already" in str(done)
    # Since its end the data has grown: more steps would be due.
    grown = dataclasses.replace(PLAN, first_step=800, done=True, step_seconds=None)
    assert grown.steps_left == 0 and grown.seconds_left == 0 and grown.end == PLAN.now
    assert "steps       0 left of" in str(grown) and "done already" in str(grown)
    assert "unknown" not in str(grown)
    one = dataclasses.replace(PLAN, epochs=1, steps_per_epoch=1, step_seconds=None)
    assert one.seconds_left == 60 and one.epoch_seconds is None


def test_what_another_run_removes_meanwhile_is_not_counted(tmp_path, monkeypatch):
    """A checkpoint that goes between the look at its folder and that at its file."""
    for step in (1, 2):
        (tmp_path / f"step_{step}").mkdir()
        (tmp_path / f"step_{step}" / "state").write_bytes(bytes(100))
    walk = os.walk

    def trains_on(folder):
        for found in walk(folder):
            shutil.rmtree(tmp_path / "step_1", ignore_errors=True)
            yield found

    monkeypatch.setattr(os, "walk", trains_on)
    assert _bytes_in(tmp_path) == 100
    assert _bytes_in(tmp_path / "none") == 0


def test_tables_are_narrow_and_numbers_are_json():
    found = dataclasses.replace(PLAN, images="[red]: 9 images", waiting_share=0.5)
    found = dataclasses.replace(found, changes=advise(CONFIG, found))
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 88
    assert any("[red]: 9 images" in line for line in lines)
    for text in ("--augment_on=device", "2026-11-29 13:40 UTC, in 25 h 41 min"):
        assert text in str(found)
    kept = json.loads(json.dumps(found.to_dict()))
    assert kept["disk"]["fits"] is True and kept["end"].startswith("2026-11-29T13:40")
    assert kept["changes"][0]["flag"] == "--augment_on=device"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal:  1024 kB\n"}, 2**20),
        (  # version 2, in a container: its own path is the top
            {
                "proc/meminfo": "MemTotal:  1024 kB\n",
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "5000\n",
            },
            5000,
        ),
        (  # the group above has the limit
            {
                "proc/self/cgroup": "0::/pods/one\n",
                "sys/fs/cgroup/pods/one/memory.max": "max\n",
                "sys/fs/cgroup/pods/memory.max": "7000\n",
            },
            7000,
        ),
        (  # version 1, whose path a container does not see
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n4:memory:/docker/a\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000\n",
            },
            6000,
        ),
        (  # version 1, without a limit
            {
                "proc/meminfo": "MemTotal:  1024 kB\n",
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
            },
            2**20,
        ),
    ],
)
def test_containers_limit_memory(tmp_path, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.memory_limit(tmp_path) == limit


def test_containers_limit_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.processor, "cores", lambda: 64)
    assert machine.usable_cores(tmp_path) == 64
    folder = tmp_path / "sys/fs/cgroup"
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text("350000 100000\n")
    assert machine.usable_cores(tmp_path) == 4
    (folder / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores(tmp_path) == 64
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/\n")
    (folder / "cpu").mkdir()
    (folder / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (folder / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert machine.usable_cores(tmp_path) == 2
    (folder / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert machine.usable_cores(tmp_path) == 64


class Counter(keras.Model):
    """Its steps are nothing; NaN on the third."""

    skip_nonfinite = False

    def __init__(self):
        super().__init__()
        self.step = self.add_weight(dtype="int64", initializer="zeros")
        self.compile(optimizer="sgd")

    def train_step(self, batch):
        self.step.assign_add(1)
        return {"loss": batch / tf.cast(3 - self.step, tf.float32)}


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_run_takes_the_steps_that_it_has(steps):
    model = Counter()
    model.step.assign(7)
    seen = []

    def data(step):
        seen.append(step)
        return tf.data.Dataset.from_tensors(0.5).repeat()

    trial = try_steps(model, data, steps)
    assert trial.steps == steps and int(model.step.numpy()) == 7 + steps
    assert seen == [7] and trial.first_seconds > 0
    assert (trial.step_seconds is None) == (steps == 1)
    assert (trial.waiting_share is None) == (steps <= 2)


def test_what_piled_up_while_the_first_step_was_traced_hides_no_wait():
    """Batches take 30 ms, steps next to nothing; all of them wait after tracing."""

    class LongToTrace(Counter):
        def train_step(self, batch):
            time.sleep(0.5)
            return super().train_step(batch)

    def slow(value):
        time.sleep(0.03)
        return value

    def data(_):
        stream = tf.data.Dataset.from_tensors(np.float32(0.5)).repeat()
        stream = stream.map(lambda x: tf.numpy_function(slow, [x], tf.float32))
        return stream.prefetch(12)

    trial = try_steps(LongToTrace(), data, 10)
    assert trial.waiting_share > 0.5 and trial.first_seconds > 0.5
    assert try_steps(LongToTrace(), data, 10, drain=False).waiting_share < 0.5


def test_a_loss_that_is_not_finite_ends_the_plan():
    data = tf.data.Dataset.from_tensors(0.5).repeat()
    with pytest.raises(NonFiniteError, match="loss of step 3"):
        try_steps(Counter(), data.skip, 10, callbacks=[NanGuard()])
