"""PretrainConfig: every setting of a pretraining, and what follows from them."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, ClassVar

from slotcon_tf.data.labelled.segmented import crop_size_of
from slotcon_tf.data.pipeline import AUGMENT_ON, crop_pair_dataset
from slotcon_tf.data.scenes import HEIGHT
from slotcon_tf.images.statistics import chosen_statistics
from slotcon_tf.method.settings import limits_of
from slotcon_tf.method.slotcon import SlotCon, check_settings
from slotcon_tf.runs.label_settings import EvalLabelSettings
from slotcon_tf.runs.labelled_monitor import TASKS as MONITORED
from slotcon_tf.runs.run_settings import (
    HostSettings,
    batch_setting,
    precision_setting,
    workdir_setting,
)
from slotcon_tf.runs.settings import SettingError, default_of, setting
from slotcon_tf.runs.source_settings import PIXEL_RANGE, SourceSettings
from slotcon_tf.training.optimizers import LARS

OPTIMIZERS = ("lars", "sgd")
INIT_PARTS = ("auto", "model", "encoder")
LR_BATCH = 256  # images that `base_lr` is for; Goyal et al. 2017 (arXiv 1706.02677)


def _of_model(name: str, help: str, **options: Any) -> Any:
    """A setting that is an argument of `SlotCon`, which knows default and bounds."""
    limits = limits_of(SlotCon.__init__, name)
    return setting(default_of(SlotCon, name), help, **limits, **options)


def _of_views(name: str, help: str, **options: Any) -> Any:
    """A setting that is an argument of `crop_pair_dataset`."""
    return setting(default_of(crop_pair_dataset, name), help, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(HostSettings, SourceSettings, EvalLabelSettings):
    """Settings of a pretraining; each is a flag of `slotcon-pretrain`.

    Raises:
        SettingError: If a setting cannot be used, whatever the images are.

    Example:
        >>> config = PretrainConfig(dataset="fake", batch_size=128)
        >>> config.peak_lr, config.steps_per_epoch(1000)
        (0.5, 7)
    """

    flagfile: ClassVar[str] = "pretrain.flags"
    command: ClassVar[str] = "slotcon-pretrain"

    workdir: str = workdir_setting("runs/pretrain")
    image_size: int = _of_views("image_size", "Edge of the views in pixels.", low=1)
    min_scale: float = _of_views(
        "min_scale", "Smallest area of a crop, share of the image.", low=0.0, high=1.0
    )
    augment_on: str = _of_views(
        "augment_on", "Where colours are changed.", choices=AUGMENT_ON, free=True
    )
    pixel_range: tuple[float, ...] | None = setting(None, PIXEL_RANGE, addable=True)
    mean: tuple[float, ...] | None = setting(
        None, "Of the images, three shares of 255: r,g,b."
    )
    std: tuple[float, ...] | None = setting(
        None, "Of the images, as mean; both default to ImageNet's."
    )
    vertical_flip: bool = _of_views(
        "vertical_flip", "Views are turned upside down, half of them."
    )
    rotate90: bool = _of_views("rotate90", "Views are turned by 0 to 3 quarters.")
    max_bad_share: float = setting(
        0.1, "Stop when more of the images are bad.", low=0.0, high=1.0, free=True
    )
    init_part: str = setting("auto", "What is taken of init_from.", choices=INIT_PARTS)
    output_stride: int = setting(32, "Of the backbone: 8, 16 or 32.", low=1)
    num_prototypes: int = _of_model("num_prototypes", "K, the number of groups.")
    hidden_dim: int = _of_model("hidden_dim", "Width of the heads' hidden layers.")
    projection_dim: int = _of_model("projection_dim", "D, width of slots.")
    teacher_momentum: float = _of_model("teacher_momentum", "At step 0; rises to 1.")
    center_momentum: float = _of_model(
        "center_momentum", "Share of the old center kept."
    )
    student_temperature: float = _of_model(
        "student_temperature", "Of the student's assignments."
    )
    teacher_temperature: float = _of_model(
        "teacher_temperature", "Of the teacher's assignments."
    )
    contrastive_temperature: float = _of_model(
        "contrastive_temperature", "Of the contrastive loss between slots."
    )
    grouping_weight: float = _of_model("grouping_weight", "Share of the grouping loss.")
    batch_size: int = batch_setting(512)
    accumulate_steps: int = _of_model(
        "accumulate_steps", "Parts of a replica's batch, to save memory."
    )
    remat: bool = _of_model("remat", "Compute stages twice, to save memory.", free=True)
    epochs: int = setting(800, "Passes over the data.", low=1)
    max_steps_per_epoch: int = setting(
        0, "Cut epochs to this many steps; 0: whole.", low=0
    )
    optimizer: str = setting("lars", "Optimizer.", choices=OPTIMIZERS)
    base_lr: float = setting(
        1.0, f"Learning rate at batch {LR_BATCH}; scaled with the batch.", low=0.0
    )
    weight_decay: float = setting(
        default_of(LARS, "l2"), "Coupled into the gradient.", low=0.0
    )
    warmup_epochs: float = setting(5.0, "Length of the linear warm-up.", low=0.0)
    precision: str = precision_setting("float32", "mixed_bfloat16", "mixed_float16")
    checkpoint_epochs: int = setting(1, "Epochs between checkpoints.", low=1, free=True)
    max_skipped_steps: int = setting(0, "Steps that may be skipped for NaN.", low=0)
    picture_epochs: int = setting(
        0, "Epochs between TensorBoard pictures; 0: none.", low=0, free=True
    )
    eval_every_epochs: int = setting(
        0, "Epochs between evaluations; 0: none.", low=0, free=True
    )
    eval_task: str = setting(
        "groups", "What is evaluated on the way.", choices=MONITORED, free=True
    )
    eval_dataset: str = setting(
        "folders", "Labelled images; see slotcon-evaluate.", free=True
    )
    eval_data_dir: str | None = setting(None, "Their folder.", free=True, private=True)
    eval_split: str = setting("val", "Split that is evaluated.", free=True)
    eval_train_split: str = setting("train", "Split that knn learns from.", free=True)
    eval_images: int = setting(64, "Images of it, evenly spaced.", low=1, free=True)
    eval_crop_size: int | None = setting(
        None, "Edge of central squares; 0: whole images.", low=0, free=True
    )
    evaluation_scale: float = setting(
        1.0,
        "Of dataset=scenes only: they are enlarged by this for evaluation.",
        low=0.1,
    )
    export: bool = setting(True, "Write a SavedModel at the end.", free=True)
    serving_size: int | None = _of_model(
        "serving_size",
        "Edge in pixels that images are brought to when the model is served, and of "
        "its masks. Default: that of the images that the run measures; 224 if it "
        "measures none, or whole ones.",
        free=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.mean) != bool(self.std):
            raise SettingError(
                "`mean` and `std` must be given together. Received: "
                f"mean={self.mean} and std={self.std}."
            )
        try:
            chosen_statistics(None, **self.statistics)
            check_settings(**self.model_settings())
        except ValueError as error:
            raise SettingError(str(error)) from error

    def model_settings(self) -> dict[str, Any]:
        """Arguments of `SlotCon`, but for its encoder and its number of steps."""
        known = self.settings()
        names = [
            name for name in inspect.signature(SlotCon).parameters if name in known
        ]
        return {
            **{name: getattr(self, name) for name in names},
            **self.statistics,
            "serving_size": self._served_size(),
            "skip_nonfinite": self.max_skipped_steps > 0,
        }

    @property
    def statistics(self) -> dict[str, tuple[float, ...] | None]:
        """mean, std and pixel_range; None for what is not set."""
        names = ("mean", "std", "pixel_range")
        return {name: getattr(self, name) or None for name in names}

    @property
    def peak_lr(self) -> float:
        """Learning rate after the warm-up: linear in the batch."""
        return self.base_lr * self.batch_size / LR_BATCH

    def steps_per_epoch(self, num_images: int) -> int:
        """Steps of an epoch: what is left of the images waits for the next."""
        steps = num_images // self.batch_size
        return min(steps, self.max_steps_per_epoch or steps)

    def _served_size(self) -> int | None:
        """As set; else the shorter edge of what the run's own scores are taken on."""
        if self.serving_size is not None:
            return self.serving_size
        if self.eval_every_epochs:
            size = self.eval_crop_size
            if size is None and self.eval_task == "groups":
                size = crop_size_of(self.eval_dataset)
            if size:
                return size
        if self.dataset == "scenes":
            return round(HEIGHT * self.evaluation_scale)
        return None
