"""The settings that pretraining and fine-tuning share."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

from slotcon_tf.runs import flag_files
from slotcon_tf.runs.callbacks import check_places
from slotcon_tf.runs.load_settings import LoadSettings
from slotcon_tf.runs.settings import SettingError, setting
from slotcon_tf.runs.strategy import STRATEGIES


def workdir_setting(default: str) -> Any:
    """The field `workdir`, whose default is each kind of run's own.

    Example:
        >>> workdir_setting("runs/mine").default
        'runs/mine'
    """
    text = "Folder that everything is written to."
    return setting(default, text, free=True, private=True)


def batch_setting(default: int) -> Any:
    """The field `batch_size`, as `workdir_setting`.

    Example:
        >>> batch_setting(512).default
        512
    """
    return setting(default, "Images per step over all replicas.", low=1)


def precision_setting(*choices: str, default: str = "auto") -> Any:
    """The field `precision`, as `workdir_setting`.

    Example:
        >>> precision_setting("float32").default
        'auto'
    """
    text = "Of the network; auto: the faster here."
    return setting(default, text, choices=("auto", *choices))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(LoadSettings):
    """Settings of a run, of whatever kind.

    Attributes:
        flagfile: Name of the file that keeps them, one per kind of run.
        command: What runs it, where the package is installed.
    """

    flagfile: ClassVar[str]
    command: ClassVar[str]

    workdir: str
    batch_size: int
    precision: str
    arch: str = setting(
        "resnet50",
        "Backbone; see slotcon_tf.BACKBONES. Fine-tuning takes that of init_from.",
    )
    init_from: str = setting(
        "",
        "What it begins with: work directory of a run, finished or not; published "
        "name; .keras, .pth or .safetensors file, of a whole model or an encoder. '': "
        "random weights.",
        private=True,
    )
    seed: int = setting(0, "Of weights and data.", low=0)
    strategy: str = setting(
        "auto", "How replicas are placed.", choices=STRATEGIES, free=True
    )
    tpu: str = setting(
        "", "TPU name or address; local on a TPU VM.", free=True, private=True
    )
    jit_compile: str = setting(
        "auto", "XLA.", choices=("auto", "true", "false"), free=True
    )
    resume: str = setting(
        "auto", "Continue what workdir holds.", choices=("auto", "never"), free=True
    )
    allow_changed_data: bool = setting(
        False,
        "Go on with other images than the run was trained on; said once, not kept.",
        free=True,
    )
    checkpoint_steps: int = setting(
        0, "Steps between more checkpoints; 0: none.", low=0, free=True
    )
    checkpoint_minutes: float = setting(
        0.0, "Minutes between more checkpoints; 0: none.", low=0.0, free=True
    )
    keep_checkpoints: int = setting(3, "Newest checkpoints kept.", low=1, free=True)
    keep_every_epochs: int = setting(
        0, "Checkpoints of these epochs stay; 0: none.", low=0, free=True
    )
    callbacks: tuple[str, ...] = setting(
        (), "Keras callbacks such as loggers, module:factory with commas.", free=True
    )
    dry_run: bool = setting(
        False,
        "Take ten steps and tell time, memory, disk and better settings; write "
        "nothing.",
        free=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self.callbacks)

    @classmethod
    def from_recipe(cls, name: str, **changes: Any) -> Self:
        """The configuration of a published recipe.

        Args:
            name: As `--recipe=` takes it, such as "coco".
            **changes: Settings that replace the recipe's.

        Raises:
            SettingError: If there is no such recipe, or it is of another kind of run.

        Example:
            >>> from slotcon_tf.runs.pretrain_config import PretrainConfig
            >>> PretrainConfig.from_recipe("coco", data_dir="/data/coco").epochs
            800
        """
        return cls.from_lines(flag_files.expand([f"--recipe={name}"], cls), **changes)

    @property
    def jit(self) -> bool | str:
        """As `keras.Model.compile` takes it."""
        return {"auto": "auto", "true": True, "false": False}[self.jit_compile]

    def check_batch(self, parts: int, what: str) -> None:
        """Raises `SettingError` unless the batch divides into equal parts.

        Args:
            parts: Their number.
            what: They are, for the error.

        Example:
            >>> from slotcon_tf.runs import PretrainConfig
            >>> PretrainConfig(batch_size=8).check_batch(4, "the 4 replicas")
        """
        batch = self.batch_size
        if batch % parts:
            raise SettingError(
                f"`batch_size` is global and must divide by {what}. Received: "
                f"batch_size={batch}. Use {max(batch - batch % parts, parts)}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSettings(RunSettings):
    """Settings of a run that several hosts may share.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> PretrainConfig().host_wait_minutes
        10.0
    """

    host_wait_minutes: float = setting(
        10.0,
        "Minutes that the hosts of one run wait for each other at the start.",
        low=0.0,
        free=True,
    )
