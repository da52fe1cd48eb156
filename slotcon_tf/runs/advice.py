"""What a plan would change about a run's settings, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from slotcon_tf.machine import Memory, size_text
from slotcon_tf.progress import duration
from slotcon_tf.runs.source_settings import SourceSettings

if TYPE_CHECKING:
    from slotcon_tf.runs.run_plan import Plan

FULL = 0.9  # of a memory: more leaves no room for a larger image or a longer batch
EMPTY = 0.4  # of a GPU's memory: less pays for twice the activations
WAITING = 0.15  # of the time: more than this is worth a change of the input
LOST_SECONDS = 3600  # of work between two checkpoints, that a failure may cost
CHECKPOINT_MINUTES = 30  # that are proposed then
WRITTEN_PER_SECOND = 200e6  # bytes of a checkpoint on a common disk; an assumption
WRITING = 0.05  # of the time: more than this is seldom worth a checkpoint
_PARTS = (2, 3, 4, 8)  # that a batch is cut into, the fewest that go


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that would be better.

    Args:
        reason: Why, with the number that it follows from.
        setting: Name of the setting to change, or None where there is none.
        value: Its better value.
        other: What to do, where there is no setting for it.
        flag: As a command line has it.

    Example:
        >>> Change("no room", setting="remat", value=True, flag="--remat").what
        '--remat'
    """

    reason: str
    setting: str | None = None
    value: Any = None
    other: str = ""
    flag: str | None = None

    @property
    def what(self) -> str:
        """The flag, or what else to do."""
        return self.flag or self.other


def advise(config: Any, plan: Plan) -> tuple[Change, ...]:
    """Changes of a run's settings that its plan calls for, the most urgent first.

    Args:
        config: Of the run: `PretrainConfig`, `FinetuneConfig` or `DetectionConfig`.
        plan: What was measured.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig, plan
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
        >>> config = PretrainConfig(
        ...     dataset="fake", arch="resnet10", image_size=32, batch_size=2, epochs=1,
        ...     max_steps_per_epoch=1, warmup_epochs=0, precision="float32", **sizes
        ... )
        >>> found = plan(config)
        >>> advise(config, found) == found.changes
        True
    """
    found = [
        *_disk(config, plan),
        *_memory(config, plan),
        *_devices(config, plan),
        *_waiting(config, plan),
        *_checkpoints(config, plan),
        *_data(config, plan),
    ]
    if not plan.first_step:
        return tuple(found)
    known = config.settings()
    late = " Of a new run only: this one has begun."
    return tuple(
        dataclasses.replace(one, reason=one.reason + late)
        if one.setting and not known[one.setting].free
        else one
        for one in found
    )


def _change(config: Any, setting: str, value: Any, reason: str) -> Change:
    flag = config.settings()[setting].line(value)
    return Change(reason, setting=setting, value=value, flag=flag)


def saving_memory(config: Any, replicas: int) -> list[Change]:
    """Settings of which each makes a step need less memory, the mildest first.

    Args:
        config: Of the run.
        replicas: That share the batch.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> [c.flag for c in saving_memory(PretrainConfig(batch_size=512), replicas=8)]
        ['--remat', '--accumulate_steps=2', '--batch_size=256']
    """
    found, known = [], config.settings()
    if "remat" in known and not config.remat:
        why = "computes the stages twice: about a fifth more time, the same numbers"
        found.append(_change(config, "remat", True, why))
    parts = 1
    if "accumulate_steps" in known:
        parts = config.accumulate_steps
        of_replica = config.batch_size // replicas
        more = [n * parts for n in _PARTS if of_replica % (n * parts) == 0]
        if more:
            why = (
                f"takes a replica's {of_replica} images in {more[0]} parts; batch "
                "statistics and negatives are those of a part"
            )
            found.append(_change(config, "accumulate_steps", more[0], why))
    smaller = config.batch_size // 2 // (replicas * parts) * replicas * parts
    if smaller:
        scaled = "base_lr" in known
        why = "the learning rate " + (
            "follows by itself; the recipe is another one"
            if scaled
            else "does not follow: lower it likewise"
        )
        found.append(_change(config, "batch_size", smaller, why))
    return found


def _disk(config: Any, plan: Plan) -> Iterator[Change]:
    disk = plan.disk
    if not disk.writable:
        why = f"{disk.folder} may not be written to by this process"
        yield Change(why, other="another workdir")
    if disk.fits:
        return
    why = (
        f"{size_text(disk.needed)} are needed at most, and {disk.folder} has "
        f"{size_text(disk.free)} free"
    )
    yield Change(f"{why}: the run would end at a full disk", other="more disk")
    if config.keep_checkpoints > 1:
        yield _change(config, "keep_checkpoints", 1, why)
    if config.keep_every_epochs:
        yield _change(config, "keep_every_epochs", 0, why)


def _memory(config: Any, plan: Plan) -> Iterator[Change]:
    host, *devices = plan.memory
    for one in [host] if plan.device == "CPU" else devices:
        if (one.share or 0) > FULL:
            for change in saving_memory(config, plan.replicas):
                reason = f"{one}; {change.reason}"
                yield dataclasses.replace(change, reason=reason)
            break
    if plan.device != "CPU" and (host.share or 0) > FULL:
        why = f"{host}; the steps themselves are on the {plan.device}"
        yield Change(why, other="more host memory")
    if devices and all(_is_empty(one) for one in devices):
        yield from _room(config, plan, devices)


def _is_empty(memory: Memory) -> bool:
    return memory.share is not None and memory.share < EMPTY


def _room(config: Any, plan: Plan, devices: Iterable[Memory]) -> Iterator[Change]:
    """Of GPUs that are far from full."""
    most = str(max(devices, key=lambda one: one.share or 0))
    if getattr(config, "remat", False):
        why = f"{most}: there is no need to compute stages twice"
        yield _change(config, "remat", False, why)
    elif getattr(config, "accumulate_steps", 1) > 1:
        why = f"{most}: there is no need to take a batch in parts"
        yield _change(config, "accumulate_steps", 1, why)
    elif 2 * config.batch_size <= plan.num_images // 2:
        why = f"{most}: a larger batch may be faster, but is another recipe; " + (
            "base_lr is scaled with it, epochs have half the steps"
            if "base_lr" in config.settings()
            else "learning_rate is not scaled with it"
        )
        yield _change(config, "batch_size", 2 * config.batch_size, why)


def _devices(config: Any, plan: Plan) -> Iterator[Change]:
    if plan.gpus > plan.replicas and config.strategy == "one_device":
        why = f"{plan.gpus} GPUs are here, and {plan.replicas} is used"
        yield _change(config, "strategy", "mirrored", why)
    slow = {"float32": "mixed_bfloat16", "mixed_bfloat16": "float32"}
    if config.precision in slow and plan.best_precision != config.precision:
        better = plan.best_precision
        does = "multiplies" if better == "mixed_bfloat16" else "does not multiply"
        why = f"the device {does} bfloat16 by itself"
        if config.settings()["precision"].default == config.precision:
            why += f"; the protocol is of {config.precision}"
        yield _change(config, "precision", better, why)
    if plan.gpus and plan.replicas == 1 and config.jit_compile == "false":
        why = "one GPU computes faster what XLA has compiled"
        yield _change(config, "jit_compile", "auto", why)


def _waiting(config: Any, plan: Plan) -> Iterator[Change]:
    share = plan.waiting_share
    if share is None or share <= WAITING or plan.images_per_second is None:
        return
    rate = plan.images_per_second
    why = (
        f"{share:.0%} of the time waits for data: the input gives {rate:.0f} images/s "
        f"on {plan.cores} core(s), the steps could take {rate / (1 - share):.0f}"
    )
    if plan.device != "CPU" and getattr(config, "augment_on", "") == "host":
        text = f"{why}; colours move to the {plan.device}"
        yield _change(config, "augment_on", "device", text)
    if isinstance(config, SourceSettings) and config.dataset in _SMALL_FILES:
        text = f"{why}; slotcon-prepare packs the files, for disks slow at small ones"
        yield Change(text, other="--dataset=records")
    need = -(-plan.cores // (1 - share))
    yield Change(why, other=f"about {need:.0f} cores")


_SMALL_FILES = ("folder", "folders", "coco", "coco_plus", "imagenet", "list")


def _checkpoints(config: Any, plan: Plan) -> Iterator[Change]:
    seconds = plan.epoch_seconds
    if not seconds:
        return
    every = getattr(config, "checkpoint_epochs", 1)
    between = seconds * min(every, plan.epochs)
    if config.checkpoint_steps and plan.step_seconds:
        between = min(between, config.checkpoint_steps * plan.step_seconds)
    if config.checkpoint_minutes:
        between = min(between, config.checkpoint_minutes * 60)
    if between > LOST_SECONDS:
        why = f"{duration(between)} between checkpoints may be lost"
        yield _change(config, "checkpoint_minutes", CHECKPOINT_MINUTES, why)
    writing = plan.disk.checkpoint / WRITTEN_PER_SECOND
    often = "checkpoint_epochs" in config.settings()
    if often and writing > WRITING * between and plan.epochs > every:
        fewer = min(plan.epochs, -(-writing // (WRITING * seconds)))
        size, speed = size_text(plan.disk.checkpoint), WRITTEN_PER_SECOND / 1e6
        why = (
            f"{size} every {between:.1f} s take {writing:.1f} s of them at "
            f"{speed:.0f} MB/s"
        )
        yield _change(config, "checkpoint_epochs", int(fewer), why)


def _data(config: Any, plan: Plan) -> Iterator[Change]:
    batch, images = plan.batch_size, plan.num_images
    parts = plan.replicas * getattr(config, "accumulate_steps", 1)
    smaller = images // 4 // parts * parts
    if "epochs" in config.settings() and 2 * batch > images and 0 < smaller < batch:
        why = (
            f"an epoch is one step of {batch} of {images} images; the other "
            f"{images - batch} wait for another one"
        )
        yield _change(config, "batch_size", smaller, why)
    warmup = getattr(config, "warmup_epochs", 0)
    if warmup >= plan.epochs and not plan.first_step:
        why = f"the warm-up of {warmup:g} epochs is as long as the run of {plan.epochs}"
        yield _change(config, "warmup_epochs", plan.epochs / 10, why)
