"""What a checkpoint keeps of the data it was trained on, and what goes on with it."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pathlib
from typing import Any

from absl import logging

from slotcon_tf.data.identity import Identity
from slotcon_tf.errors import first_line
from slotcon_tf.files import write_text, write_whole
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import as_text
from slotcon_tf.runs.workdir import WorkdirError

NAME = "data.json"
_SHOWN = 6  # differences


class ChangedData(WorkdirError):
    """A run was trained on other data than it is to go on with.

    Example:
        >>> issubclass(ChangedData, WorkdirError)
        True
    """


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data of a run, and the steps that follow from it.

    Attributes:
        identity: `Identity` of what it is trained on.
        steps_per_epoch: Steps of an epoch.
        steps: Steps of the whole run.
        total_steps: Of the model, as its configuration has them; None: it has none.

    Example:
        >>> RunData(Identity(), steps_per_epoch=10, steps=80).total_steps is None
        True
    """

    identity: Identity
    steps_per_epoch: int
    steps: int
    total_steps: int | None = None


def write_data(checkpoint: pathlib.Path, folder: pathlib.Path, data: RunData) -> None:
    """Writes what `check_data` reads: into a checkpoint, and the names of files once.

    Lists of names may be long, and are the same in all checkpoints: they stand beside
    those. A checkpoint that is copied alone still knows its digest and its numbers.

    Args:
        checkpoint: Its folder.
        folder: Of all checkpoints.
        data: Of the run.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.data.identity import ImageSet
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> images = ImageSet(1, {}, ["a.png"], [30])
        >>> write_data(folder, folder, RunData(Identity(images=images), 10, 80))
        >>> sorted(path.name for path in folder.iterdir())  # doctest: +ELLIPSIS
        ['data-....json.gz', 'data.json']
        >>> read_data(folder)["steps"]
        80
    """
    summary = data.identity.summary()
    names = _names_of(folder, summary["digest"])
    if not names.exists():
        packed = gzip.compress(json.dumps(data.identity.lists()).encode(), mtime=0)
        write_whole(names, lambda file: file.write(packed))
    kept = {"steps_per_epoch": data.steps_per_epoch, "steps": data.steps, **summary}
    write_text(checkpoint / NAME, json.dumps(kept, indent=1) + "\n")


def read_data(checkpoint: pathlib.Path) -> dict[str, Any] | None:
    """What `write_data` wrote into a checkpoint; None: it is older than that.

    Raises:
        ValueError: If it is damaged.

    Example:
        >>> read_data(pathlib.Path("step_000000042")) is None
        True
    """
    path = checkpoint / NAME
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not {"digest", "parts", "steps"} <= set(found):
        raise ValueError(f"its {NAME} is none")
    return found


def check_data(
    checkpoint: pathlib.Path, data: RunData, config: RunSettings, old: RunSettings
) -> bool:
    """Refuses to go on with other data than a checkpoint was trained on.

    Args:
        checkpoint: Its folder, in that of all checkpoints.
        data: Of the run now.
        config: Of the run; with `allow_changed_data` differences are only told.
        old: The settings that the checkpoint was written with.

    Returns:
        Whether the run had ended, and its data has changed since: it stays ended.

    Raises:
        ChangedData: If the data differs; it says in what.
        ValueError: If what the checkpoint says of it is damaged.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.data.identity import ImageSet
        >>> from slotcon_tf.runs import PretrainConfig
        >>> config, folder = PretrainConfig(), pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "step_000000010").mkdir()
        >>> was = Identity(images=ImageSet(1, {}, ["a.png"], [30]))
        >>> write_data(folder / "step_000000010", folder, RunData(was, 10, 80))
        >>> now = Identity(images=ImageSet(2, {}, ["a.png", "b.png"], [30, 40]))
        >>> check_data(folder / "step_000000010", RunData(now, 20, 160), config, config)
        Traceback (most recent call last):
        slotcon_tf.runs.kept_data.ChangedData: ... other data: 1 file more (b.png). ...
    """
    kept, ended = read_data(checkpoint), False
    if kept is None:
        total = _total_steps(checkpoint.parent.parent)
        differ = _of_older(data, config, old, total)
        ended = _had_ended(checkpoint, old, total)
        if not differ:
            logging.info(
                "%s is of a version that kept no identity of its data: it is not "
                "compared, and kept from now on.",
                checkpoint,
            )
    else:
        names = _read_names(_names_of(checkpoint.parent, kept["digest"]))
        try:
            differ = data.identity.differences(kept, names)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"its {NAME} is none: {first_line(error)}") from None
        ended = _step_of(checkpoint) >= kept["steps"]
    if not differ:
        return False
    told = "; ".join(differ[:_SHOWN])
    if not config.allow_changed_data:
        raise ChangedData(
            f"{checkpoint} was trained on other data: {told}. {_advice(config, ended)}"
        )
    logging.warning("The data has changed since %s: %s.", checkpoint, told)
    was, now = (kept or {}).get("steps_per_epoch"), data.steps_per_epoch
    if was not in (None, now) and not ended:
        logging.warning(
            "An epoch has %s steps now, and had %s: what is done is counted in epochs "
            "of now, and rows of the history are dropped, or are missing.",
            now,
            was,
        )
    return ended


def _advice(config, ended):
    if ended:
        return (
            "The run has ended, and other data does not reopen it. To train on what is "
            f"there now, set init_from={config.workdir} and another `workdir`. With "
            "`allow_changed_data` it stays ended."
        )
    return (
        "Bring that data back, take another `workdir`, or set `allow_changed_data` to "
        "go on with what is there."
    )


def _step_of(checkpoint) -> int:
    step = checkpoint.name.rpartition("_")[2]
    return int(step) if step.isdigit() else 0


def _total_steps(workdir) -> int | None:
    """Of the model of a run, as its first version wrote it; None: not known."""
    try:
        found = json.loads((workdir / "model.json").read_text())["total_steps"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _had_ended(checkpoint, old, total) -> bool:
    """Whether a checkpoint that kept no identity of its data is a run's last.

    A model's steps count the images too that are left over at an epoch's end, less
    than a step in each epoch; see `PretrainRun.build_model`.
    """
    epochs = getattr(old, "epochs", None)
    if not total or not epochs:
        return False
    return _step_of(checkpoint) >= total // epochs * epochs


def _of_older(data, config, old, total) -> list[str]:
    """Signs of other data than that of a checkpoint that kept no identity of it."""
    found = []
    for name, known in config.settings().items():
        was, now = getattr(old, name), getattr(config, name)
        if known.place and was != now and not (was and now and _same_place(was, now)):
            found.append(f"{name}={as_text(was)} (now {as_text(now)})")
    # The number of steps of a model follows from the number of images.
    if total is not None and data.total_steps not in (None, total):
        found.append(f"images for {total} steps in all (now {data.total_steps})")
    return found


def _same_place(one, other):
    return os.path.realpath(one) == os.path.realpath(other)


def _names_of(folder, digest):
    return folder / f"data-{digest[:12]}.json.gz"


def _read_names(path) -> Any:
    """Lists of names and sizes; None if they are gone, or damaged."""
    try:
        found = json.loads(gzip.decompress(path.read_bytes()))
        lists = [(part["names"], part["sizes"]) for part in found.values()]
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError):
        return None
    same = all(len(names) == len(sizes) for names, sizes in lists)
    return found if same else None
