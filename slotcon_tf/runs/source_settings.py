"""The settings that say which images are read, for every command."""

from __future__ import annotations

import dataclasses
from typing import Any

from slotcon_tf.images.decoding import MAX_PIXELS
from slotcon_tf.images.statistics import check_pixel_range
from slotcon_tf.runs.settings import Config, SettingError, setting

PIXEL_RANGE = "low,high that images of more than 8 bits are read in."


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSettings(Config):
    """Of a command that reads images without labels; see `open_source`.

    Example:
        >>> SourceSettings(data_dir="photos").lines()[0]
        '--data_dir=photos'
    """

    dataset: str = setting(
        "folder",
        "folder, coco, coco_plus, imagenet, list, records, tfds:NAME, scenes or fake.",
    )
    data_dir: str | None = setting(
        None, "Folder of the images, or the list file.", place=True
    )
    allow_remote_paths: bool = setting(
        False, "A local list may name remote files (gs://).", free=True
    )
    max_pixels: int = setting(MAX_PIXELS, "Larger images are skipped.", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSettings(SourceSettings):
    """Of a command that works on image files.

    Example:
        >>> settings = FileSettings(data_dir="photos", pixel_range=(0, 4095))
        >>> settings.limits()["pixel_range"]
        (0.0, 4095.0)
    """

    dataset: str = setting("folder", "folder, coco, coco_plus, imagenet or list.")
    data_dir: str = setting(None, "Folder of the images, or the list file.")
    pixel_range: tuple[float, ...] | None = setting(None, PIXEL_RANGE, addable=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_pixel_range(self.pixel_range or None)
        except ValueError as error:
            raise SettingError(str(error)) from error

    def limits(self) -> dict[str, Any]:
        """Arguments of `slotcon_tf.data.open_source` beside the place."""
        return {
            "allow_remote": self.allow_remote_paths,
            "max_pixels": self.max_pixels,
            "pixel_range": self.pixel_range or None,
        }
