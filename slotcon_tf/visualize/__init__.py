"""Pictures: groups over images, prototypes, features, curves, and their report."""

from slotcon_tf.visualize.colors import label_colors, matched_colors
from slotcon_tf.visualize.figures import picture_of, save_slots, slots_figure
from slotcon_tf.visualize.overlays import overlay

__all__ = [
    "label_colors",
    "matched_colors",
    "overlay",
    "picture_of",
    "save_slots",
    "slots_figure",
]
