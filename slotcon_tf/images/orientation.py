"""EXIF orientation, by the rule of `slotcon_client.images.orientation`."""

from slotcon_client.images.orientation import (
    is_plain,
    load_as_stored,
    orientation_of,
    upright,
)

__all__ = ["is_plain", "load_as_stored", "orientation_of", "upright"]
