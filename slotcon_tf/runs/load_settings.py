"""The settings that say which model is loaded, for every command."""

from __future__ import annotations

import dataclasses
from typing import Any

from slotcon_tf.runs.settings import Config, setting


def which_setting() -> Any:
    """The field `which` of commands that take one of a model's two networks.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Look(ModelSettings):
        ...     which: str = which_setting()
        >>> Look(model="runs/photos").which
        'teacher'
    """
    return setting(
        "teacher", "Whose groups and features.", choices=("teacher", "student")
    )


def scale_setting() -> Any:
    """The field `scale` of commands that look at images of any size.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Look(ModelSettings):
        ...     scale: float = scale_setting()
        >>> Look(model="runs/photos", scale=2).lines()
        ['--model=runs/photos', '--scale=2.0']
    """
    return setting(
        1.0,
        "Images are resized by this factor first: larger ones give finer maps.",
        low=0.05,
        high=16.0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadSettings(Config):
    """Of a command that loads models of others, too.

    Example:
        >>> LoadSettings(prefix="backbone").lines()
        ['--prefix=backbone']
    """

    prefix: str | None = setting(
        None,
        "Of a torch or safetensors file with several encoders: what stands in front of "
        "the names of the one to take, such as backbone; . for names with nothing in "
        "front.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings(LoadSettings):
    """Of a command that works with a trained model.

    Example:
        >>> ModelSettings(model="runs/photos").model
        'runs/photos'
    """

    model: str = setting(
        None,
        "A trained model: work directory of a run, finished or not, or one of its "
        "checkpoints; a .keras, torch or safetensors file; a published model's name.",
        aliases=("checkpoint",),
    )
