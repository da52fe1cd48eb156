"""FinetuneConfig: every setting of a fine-tuning, and what follows from them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from slotcon_tf.data.labelled import SEGMENTED
from slotcon_tf.runs.finetune_settings import (
    FinetuneSettings,
    learning_rate_setting,
    steps_setting,
)
from slotcon_tf.runs.label_settings import LabelSettings
from slotcon_tf.runs.run_settings import (
    batch_setting,
    precision_setting,
    workdir_setting,
)
from slotcon_tf.runs.settings import SettingError, default_of, setting
from slotcon_tf.segmentation import HEADS, Augmentation

SCHEDULES = ("poly", "steps")


def _of_crops(name: str, help: str, **options: Any) -> Any:
    """A setting that is an argument of `Augmentation`."""
    return setting(default_of(Augmentation, name), help, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(FinetuneSettings, LabelSettings):
    """Settings of a fine-tuning; each is a flag of `slotcon-finetune-segmentation`.

    Raises:
        SettingError: If a setting cannot be used, whatever the images are.

    Example:
        >>> config = FinetuneConfig(steps=300, fit_edges=(640, 480))
        >>> config.steps_between_evaluations
        30
    """

    flagfile: ClassVar[str] = "finetune.flags"
    command: ClassVar[str] = "slotcon-finetune-segmentation"

    workdir: str = workdir_setting("runs/finetune")
    dataset: str = setting("voc", f"Labelled images: {', '.join(SEGMENTED)}.")
    fit_edges: tuple[int, ...] = setting(
        (2049, 513),
        "Long and short edge that images are fitted into before the random factor, "
        "and for evaluation; pixels.",
        low=1,
        aliases=("scale",),
    )
    min_ratio: float = setting(
        default_of(Augmentation, "ratios")[0],
        "Smallest random factor of fit_edges.",
        low=0.01,
    )
    max_ratio: float = setting(
        default_of(Augmentation, "ratios")[1],
        "Largest random factor of fit_edges.",
        low=0.01,
    )
    crop_size: int = setting(513, "Edge of the crops in pixels.", low=8)
    cat_max_ratio: float = _of_crops(
        "cat_max_ratio", "Largest share of a class in a crop.", low=0.0, high=1.0
    )
    distort: bool = _of_crops("distort", "Change colours, as for ADE20K.")
    head: str = setting("d6", "FCN; d6: output stride 16, d8: 8.", choices=tuple(HEADS))
    sliding_stride: int = setting(
        0, "Between windows of crop_size in evaluation; 0: none.", low=0
    )
    batch_size: int = batch_setting(16)
    steps: int = steps_setting(30_000)
    schedule: str = setting(
        "steps", "steps: times 0.1 at 70% and 90%.", choices=SCHEDULES
    )
    learning_rate: float = learning_rate_setting(0.003, aliases=("base_lr",))
    eval_every_steps: int = setting(0, "Divides steps; 0: ten times in the run.", low=0)
    # Not float16: the step scales no loss.
    precision: str = precision_setting("float32", "mixed_bfloat16")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.fit_edges) != 2:
            raise SettingError(
                "`fit_edges` must be two whole numbers of pixels, the long and the "
                "short edge. Received: fit_edges="
                f"{','.join(map(str, self.fit_edges))}. Write fit_edges=2049,513."
            )

    @property
    def steps_between_evaluations(self) -> int:
        """A divisor of `steps`."""
        return self.steps_between_rows
