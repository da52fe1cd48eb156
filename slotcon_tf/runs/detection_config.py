"""DetectionConfig: every setting of a fine-tuning for detection."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, ClassVar

from slotcon_tf.data.objects import OBJECT_SETS
from slotcon_tf.detection import MaskRCNN
from slotcon_tf.detection.dataset import object_batches
from slotcon_tf.detection.pyramid import MULTIPLE
from slotcon_tf.runs.finetune_settings import (
    FinetuneSettings,
    learning_rate_setting,
    steps_setting,
)
from slotcon_tf.runs.run_settings import (
    HostSettings,
    batch_setting,
    precision_setting,
    workdir_setting,
)
from slotcon_tf.runs.settings import SettingError, default_of, setting
from slotcon_tf.training.schedules import milestone_steps


def _of_model(name: str, help: str, **options: Any) -> Any:
    """A setting that is an argument of `MaskRCNN`."""
    return setting(default_of(MaskRCNN, name), help, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionConfig(FinetuneSettings, HostSettings):
    """Settings of a detector's training; flags of `slotcon-finetune-detection`.

    The defaults are the 1x protocol of Mask R-CNN on COCO.

    Raises:
        SettingError: If a setting cannot be used, whatever the images are.

    Example:
        >>> config = DetectionConfig(fixed_sizes=("800x1344", "1344x800"))
        >>> config.padded_sizes, config.falls_at
        (((800, 1344), (1344, 800)), (60000, 80000))
    """

    flagfile: ClassVar[str] = "finetune_detection.flags"
    command: ClassVar[str] = "slotcon-finetune-detection"

    workdir: str = workdir_setting("runs/detection")
    dataset: str = setting("coco", f"Images with objects: {', '.join(OBJECT_SETS)}.")
    init_part: str = setting(
        "encoder", "What is taken of init_from.", choices=("encoder", "detector")
    )
    train_short_edges: tuple[int, ...] = setting(
        (640, 672, 704, 736, 768, 800),
        "Pixels that the shortest edge of a training image becomes, drawn among these.",
        low=32,
    )
    short_edge: int = setting(
        800, "The same of an image that is measured, and later served.", low=32
    )
    long_edge: int = setting(
        1333, "Pixels that the longest edge becomes at most.", low=32
    )
    flip: bool = setting(True, "Mirror every second training image.")
    fixed_sizes: tuple[str, ...] = setting(
        (),
        "HEIGHTxWIDTH that batches are padded to, one or some, for XLA and TPUs, such "
        "as 800x1344,1344x800; '': each batch to its largest image.",
    )
    max_objects: int = setting(
        default_of(object_batches, "max_objects"),
        "With fixed_sizes, of a training image: the smallest are left out of more.",
        low=1,
    )
    max_corners: int | None = setting(
        None,
        "Of an object's polygons; more are thinned out. Default: 256 with fixed_sizes, "
        "else 1024.",
        low=4,
    )
    box_only: bool = setting(False, "No mask head: a Faster R-CNN.")
    freeze_encoder: bool = setting(
        False, "Leave the encoder as it is, its moving statistics too."
    )
    channels: int = _of_model("channels", "Of the pyramid and the heads.", low=1)
    units: int = _of_model("units", "Of the box head's dense layer.", low=1)
    proposals: tuple[int, ...] = _of_model(
        "proposals",
        "Boxes that training keeps of a level, before suppression, and of all levels, "
        "after it.",
        low=1,
    )
    test_proposals: tuple[int, ...] = _of_model(
        "test_proposals", "The same in inference.", low=1
    )
    anchors_per_image: int = _of_model(
        "anchors_per_image", "Sampled for the proposals' losses.", low=2
    )
    regions_per_image: int = _of_model(
        "regions_per_image", "Sampled for the heads' losses.", low=4
    )
    max_detections: int = _of_model("max_detections", "Of an image.", low=1)
    batch_size: int = batch_setting(16)
    steps: int = steps_setting(90_000)
    learning_rate: float = learning_rate_setting(0.02)
    warmup_steps: int = setting(
        1000, "Of a linear warm-up, from warmup_factor on.", low=0
    )
    warmup_factor: float = setting(
        0.001, "Share of the learning rate at step 0.", low=0.0, high=1.0
    )
    milestones: tuple[str, ...] = setting(
        ("2/3", "8/9"), "Shares of steps after which the learning rate is a tenth."
    )
    precise_batches: int = setting(
        200,
        "Training batches that moving statistics are measured on before a detector is "
        "evaluated (PreciseBN); 0: the averages of training stay.",
        low=0,
    )
    eval_every_steps: int = setting(0, "Divides steps; 0: at the end alone.", low=0)
    # Not float16: the step scales no loss.
    precision: str = precision_setting("float32", "mixed_bfloat16", default="float32")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_part == "detector" and not self.init_from:
            raise SettingError(
                "init_part=detector needs `init_from`, a detector. Received: none."
            )
        for name in ("proposals", "test_proposals"):
            value = getattr(self, name)
            if len(value) != 2:
                raise SettingError(
                    f"`{name}` must be two whole numbers. Received: {name}="
                    f"{','.join(map(str, value))}. Write {name}=2000,1000."
                )
        if not self.train_short_edges:
            raise SettingError(
                "`train_short_edges` must be one number of pixels at least. Received: "
                "none. Write train_short_edges=800."
            )
        longest = max(*self.train_short_edges, self.short_edge)
        if self.long_edge < longest:
            raise SettingError(
                "`long_edge` must be no shorter than the short edges. Received: "
                f"long_edge={self.long_edge}. Set long_edge={longest} or more."
            )
        shares = self.shares
        if list(shares) != sorted(set(shares)) or not all(0 < s < 1 for s in shares):
            raise SettingError(
                "`milestones` must be rising shares between 0 and 1. Received: "
                f"milestones={','.join(self.milestones)}. Write milestones=2/3,8/9."
            )
        if not self.padded_sizes and self.jit is True:
            raise SettingError(
                "jit_compile=true needs `fixed_sizes`: XLA compiles every size anew. "
                "Received: none. Set fixed_sizes=800x1344,1344x800."
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """`milestones` as numbers."""
        try:
            return tuple(float(Fraction(text)) for text in self.milestones)
        except (ValueError, ZeroDivisionError):
            raise SettingError(
                "`milestones` must be shares such as 2/3 or 0.5. Received: "
                f"milestones={','.join(self.milestones)}."
            ) from None

    @property
    def falls_at(self) -> tuple[int, ...]:
        """Steps from which on the learning rate is a tenth of before."""
        return milestone_steps(self.shares, self.steps)

    @property
    def padded_sizes(self) -> tuple[tuple[int, int], ...]:
        """`fixed_sizes` as pairs of height and width in pixels."""
        found = []
        for text in self.fixed_sizes:
            height, _, width = text.partition("x")
            sides = [int(side) for side in (height, width) if side.isdigit()]
            if len(sides) != 2 or not all(s and s % MULTIPLE == 0 for s in sides):
                raise SettingError(
                    "`fixed_sizes` must be HEIGHTxWIDTH in pixels, multiples of "
                    f"{MULTIPLE}. Received: fixed_sizes={text}. Write "
                    "fixed_sizes=800x1344,1344x800."
                )
            found.append((sides[0], sides[1]))
        return tuple(found)

    def model_settings(self) -> dict[str, Any]:
        """Arguments of `MaskRCNN`, but for its encoder and its classes."""
        names = ("channels", "units", "proposals", "test_proposals", "seed")
        sampled = ("anchors_per_image", "regions_per_image", "max_detections")
        edges = ("short_edge", "long_edge")
        return {
            **{name: getattr(self, name) for name in (*names, *sampled, *edges)},
            "masks": not self.box_only,
            "fixed_shapes": bool(self.fixed_sizes),
        }
