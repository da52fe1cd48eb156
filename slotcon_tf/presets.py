"""The published recipes and models: hyperparameters, and where the authors keep them.

Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A, and the authors' scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Recipe:
    """One published training run.

    Attributes:
        dataset: Name for `slotcon_tf.data.open_source`.
        num_images: Images of that data set.
        epochs: Passes over it.
        num_prototypes: K.
        The others are the settings that all four share.

    Example:
        >>> RECIPES["coco"].peak_lr, RECIPES["coco"].steps_per_epoch
        (2.0, 231)
    """

    dataset: str
    num_images: int
    epochs: int
    num_prototypes: int
    arch: str = "resnet50"
    image_size: int = 224
    min_scale: float = 0.08
    hidden_dim: int = 4096
    projection_dim: int = 256
    batch_size: int = 512
    base_lr: float = 1.0
    weight_decay: float = 1e-5
    warmup_epochs: int = 5
    optimizer: str = "lars"

    @property
    def peak_lr(self) -> float:
        """Learning rate after the warm-up: linear in the batch."""
        return self.base_lr * self.batch_size / 256

    @property
    def steps_per_epoch(self) -> int:
        return self.num_images // self.batch_size


RECIPES = {
    "coco": Recipe("coco", 118_287, 800, 256),
    "coco_plus": Recipe("coco_plus", 241_690, 800, 256),
    "imagenet_100ep": Recipe("imagenet", 1_281_167, 100, 2048),
    "imagenet_200ep": Recipe("imagenet", 1_281_167, 200, 2048),
}


@dataclass(frozen=True)
class Published:
    """A model that the authors publish, as a full checkpoint for PyTorch.

    Attributes:
        recipe: Key of `RECIPES`.
        box_ap, mask_ap: Of Mask R-CNN R50-FPN on COCO, 1x schedule, by the authors.
        url: Of the full checkpoint.

    Example:
        >>> PUBLISHED["slotcon_coco_r50_800ep"].box_ap
        41.0
    """

    recipe: str
    box_ap: float
    mask_ap: float
    url: str


_SHARE = "https://connecthkuhk-my.sharepoint.com/:u:/g/personal/xwen_connect_hku_hk/"
PUBLISHED_AT = "https://github.com/CVMI-Lab/SlotCon#pretrained-models"
PUBLISHED = {
    "slotcon_coco_r50_800ep": Published(
        "coco",
        41.0,
        37.0,
        _SHARE + "EZ0wZDBEZ6tEuhHskPZ_Y6gBSTeaBrQd8qLhwjzRmD6MPQ",
    ),
    "slotcon_cocoplus_r50_800ep": Published(
        "coco_plus",
        41.8,
        37.8,
        _SHARE + "EeXT7OKwVQdBugtryU8rLXYBRfsfOEfJA-JTH8Spn4yVDw",
    ),
    "slotcon_imagenet_r50_100ep": Published(
        "imagenet_100ep",
        41.4,
        37.2,
        _SHARE + "EUAAU7QehXhIsK7EjlpcRqMBi_uzxe_8tFcUN7AIVdyFEg",
    ),
    "slotcon_imagenet_r50_200ep": Published(
        "imagenet_200ep",
        41.8,
        37.8,
        _SHARE + "EZ9bTfGqscZBrRCR9ca8gHoBymN4gCdLGPtYOVy6GXqpfw",
    ),
}
# Environment variable that names the folder of their files, and its default.
FOLDER = ("SLOTCON_TF_PRESETS", "~/.cache/slotcon_tf")


class Store(Protocol):
    """Reads and writes pretrained models; see `SlotCon.from_preset`.

    Example:
        >>> from slotcon_tf.interop import pretrained
        >>> checked: Store = pretrained  # a module with these functions is one
    """

    def from_preset(self, source: Any, **settings: Any) -> Any: ...

    def save_to_preset(self, model: Any, directory: Any) -> Any: ...


_openers: list[Callable[[], Store]] = []


def register_store(opener: Callable[[], Store]) -> None:
    """Says who reads and writes pretrained models.

    Readers build models, and so import them; a model that is asked for a pretrained one
    finds them here.

    Args:
        opener: Function that returns the store, imported when it is first needed.

    Example:
        >>> import importlib, slotcon_tf  # which does this:
        >>> room = "slotcon_tf.interop.pretrained"
        >>> register_store(lambda: importlib.import_module(room))
    """
    _openers[:] = [opener]


def store() -> Store:
    """Who reads and writes pretrained models.

    Example:
        >>> import slotcon_tf
        >>> callable(store().from_preset)
        True
    """
    return _openers[0]()
