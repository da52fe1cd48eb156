"""The settings that fine-tunings share: images with labels, steps, evaluations."""

from __future__ import annotations

import dataclasses
from typing import Any

from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import SettingError, setting

_ROWS = 10  # of a history, unless a setting says more


def steps_setting(default: int) -> Any:
    """The field `steps`, whose default is each kind of fine-tuning's own.

    Example:
        >>> steps_setting(30_000).default
        30000
    """
    return setting(default, "Training steps, of the whole run.", low=1)


def learning_rate_setting(default: float, aliases: tuple[str, ...] = ()) -> Any:
    """The field `learning_rate`, as `steps_setting`.

    Example:
        >>> learning_rate_setting(0.02).default
        0.02
    """
    text = "Learning rate of this very batch: it is not scaled."
    return setting(default, text, low=0.0, aliases=aliases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RunSettings):
    """Settings of a fine-tuning, of whatever kind.

    Example:
        >>> from slotcon_tf.runs import FinetuneConfig
        >>> FinetuneConfig(steps=90).steps_between_rows
        9
    """

    dataset: str
    steps: int
    learning_rate: float
    eval_every_steps: int
    data_dir: str | None = setting(None, "Folder of the labelled images.", place=True)
    train_split: str = setting("train", "What is learned from.")
    val_split: str = setting("val", "What is measured.")
    max_train_images: int | None = setting(
        None, "Evenly spaced images of train_split.", low=1
    )
    max_val_images: int | None = setting(
        None, "Evenly spaced images of val_split.", low=1
    )
    weight_decay: float = setting(1e-4, "Coupled into the gradient.", low=0.0)
    num_pictures: int = setting(
        4, "Images in the run's picture; 0: no picture.", low=0, free=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        every = self.eval_every_steps
        if every and self.steps % every:
            raise SettingError(
                "`eval_every_steps` must divide `steps`. Received: "
                f"eval_every_steps={every} for steps={self.steps}. Set "
                f"steps={max(self.steps - self.steps % every, every)}."
            )

    @property
    def steps_between_rows(self) -> int:
        """Of the history; a divisor of `steps`."""
        if self.eval_every_steps:
            return self.eval_every_steps
        counts = range(_ROWS, 0, -1)
        times = next(count for count in counts if self.steps % count == 0)
        return self.steps // times
