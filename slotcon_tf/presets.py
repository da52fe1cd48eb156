"""What is published: the paper's heads, and the models that the authors keep.

Hyperparameters of training stand in `slotcon_tf.recipes`.

Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A, and the authors' scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

# The paper's two heads for segmentation, by the dilation of one and the output stride
# of the other as mmsegmentation names them: arguments of `Segmenter`, and of the
# auxiliary head where there is one. The encoder that each of them sits on is below.
HEADS = {
    "d6": {
        "head": {
            "channels": 256,
            "num_convs": 2,
            "dilation": 6,
            "concat_input": False,
            "dropout": 0.0,
        },
        "align_corners": True,
        "auxiliary_weight": 0.0,
    },
    "d8": {
        "head": {
            "channels": 512,
            "num_convs": 2,
            "dilation": 1,
            "concat_input": True,
            "dropout": 0.1,
        },
        "align_corners": False,
        "auxiliary_weight": 0.4,
    },
}
AUXILIARY_HEAD = {
    "channels": 256,
    "num_convs": 1,
    "concat_input": False,
    "dropout": 0.1,
}
OUTPUT_STRIDES = {"d6": 16, "d8": 8}


@dataclass(frozen=True)
class Published:
    """A model that the authors publish, as a full checkpoint for PyTorch.

    Attributes:
        recipe: Name of its recipe, in `slotcon_tf.recipes`.
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
        >>> register_store(_openers[0])  # as `import slotcon_tf` did
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
