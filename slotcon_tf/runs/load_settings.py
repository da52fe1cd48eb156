"""The settings that say what of a model's file is loaded, for every command."""

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
