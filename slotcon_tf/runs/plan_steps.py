"""Ten steps of a run, taken and measured, and what follows from them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from slotcon_tf.devices import best_precision
from slotcon_tf.machine import device_memory, free_disk, host_memory, usable_cores
from slotcon_tf.progress import Stopwatch
from slotcon_tf.runs import loop
from slotcon_tf.runs.advice import advise, saving_memory
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.run_plan import Disk, Plan
from slotcon_tf.runs.strategy import spans_hosts

if TYPE_CHECKING:
    from slotcon_tf.runs.run import Run

STEPS = 10  # that are taken


def plan_of(run: Run) -> Plan:
    """Takes ten steps of a run, or what is left of it, and tells what to expect.

    Args:
        run: Its model is changed by the steps; nothing is written.

    Raises:
        CommandError: If a step does not fit into memory; it names what to change.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> from slotcon_tf.runs.pretraining import PretrainRun
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
        >>> config = PretrainConfig(
        ...     dataset="fake", arch="resnet10", image_size=32, batch_size=2, epochs=1,
        ...     max_steps_per_epoch=2, warmup_epochs=0, dry_run=True, **sizes
        ... )
        >>> with PretrainRun.begun(config) as run:
        ...     plan_of(run).steps_taken
        2
    """
    run.log_start()
    whole = run.steps_per_epoch * run.epochs
    steps = 0 if run.done else min(STEPS, whole - run.first_step)
    trial, evaluation = None, None
    if steps:
        try:
            trial = loop.try_steps(
                run.model,
                run.distributed,
                steps,
                callbacks=[run.guard()],
                look_at=run.look_at,
                drain=not spans_hosts(run.strategy),
                of_any_size=run.batches_vary,
            )
        except tf.errors.ResourceExhaustedError as error:
            raise _out_of_memory(run) from error
        evaluation = run.evaluation_seconds()
    config = run.config
    found = Plan(
        workdir=str(run.workdir),
        images=repr(run.images),
        num_images=run.images.num_images,
        batch_size=config.batch_size,
        replicas=run.strategy.num_replicas_in_sync,
        device=_device(run),
        gpus=len(tf.config.list_logical_devices("GPU")),
        cores=usable_cores(),
        best_precision=best_precision(),
        first_step=run.first_step,
        done=run.done,
        steps_per_epoch=run.steps_per_epoch,
        epochs=run.epochs,
        steps_taken=steps,
        first_seconds=trial and trial.first_seconds,
        step_seconds=trial and trial.step_seconds,
        waiting_share=trial and trial.waiting_share,
        evaluation_seconds=evaluation,
        evaluation_epochs=run.evaluation_epochs,
        memory=(host_memory(), *device_memory()),
        disk=_disk(run),
        now=datetime.datetime.now().astimezone(),
    )
    return dataclasses.replace(found, changes=advise(config, found))


def _device(run: Run) -> str:
    if isinstance(run.strategy, tf.distribute.TPUStrategy):
        return "TPU"
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"


def _out_of_memory(run: Run) -> CommandError:
    changes = saving_memory(run.config, run.strategy.num_replicas_in_sync)
    settings = " or ".join(f"{c.setting}={c.value}" for c in changes)
    return CommandError(
        "A step must fit into memory. Received: no memory is left for batch_size="
        f"{run.config.batch_size}. Try {settings or 'a smaller network'}."
    )


def _disk(run: Run) -> Disk:
    config = run.config
    folder, free = free_disk(run.workdir)
    epochs = math.ceil(run.epochs / run.checkpoint_epochs)
    often = config.checkpoint_steps or config.checkpoint_minutes
    # One more than is kept: a new one is written before the oldest goes.
    newest = config.keep_checkpoints + 1
    every = config.keep_every_epochs
    kept = run.epochs // every if every else 0
    return Disk(
        folder=str(folder),
        writable=os.access(folder, os.W_OK),
        checkpoint=bytes_of(run.checkpoints.variables),
        checkpoints=kept + (newest if often else min(newest, epochs)),
        models=run.model_bytes(),
        there=_bytes_in(run.checkpoints.folder),
        free=free,
    )


def _bytes_in(folder: pathlib.Path) -> int:
    """Of the files in a folder, some of which another run may remove meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found += os.path.getsize(os.path.join(place, name))
    return found


def bytes_of(variables: Iterable[Any]) -> int:
    """Bytes of variables' numbers, each counted once.

    Example:
        >>> weight = tf.Variable(tf.zeros((3, 4)))
        >>> bytes_of([weight, weight])
        48
    """
    once = {id(one): one for one in variables}.values()
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in once)


def seconds_of(work: Callable[[], Any]) -> float:
    """How long some work takes.

    Example:
        >>> seconds_of(lambda: None) >= 0
        True
    """
    watch = Stopwatch()
    with watch:
        work()
    return watch.seconds
