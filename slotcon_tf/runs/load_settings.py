"""The settings that say which model is loaded, for every command."""

from __future__ import annotations

import dataclasses

from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadSettings(Config):
    """Of a command that loads models of others, too."""

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
