"""Pictures of predictions: image, truth, prediction."""

import pathlib

import numpy as np

from slotcon_tf.visualize.colors import label_colors
from slotcon_tf.visualize.figures import picture_grid
from slotcon_tf.visualize.overlays import overlay


def masks_figure(images, truths, predictions, class_names):
    """A row per image, of any size: the image, its true classes, its predicted ones.

    Args:
        images: List of uint8 (H, W, 3).
        truths, predictions: Lists of integers (H, W); ids that are no class (void)
            leave the image as it is.
        class_names: Names of the classes. The legend shows those that occur.

    Returns:
        A matplotlib Figure.
    """
    colors = label_colors(len(class_names))
    rows = [
        [image, *(overlay(image, np.asarray(m, np.int64), colors) for m in maps)]
        for image, *maps in zip(images, truths, predictions, strict=True)
    ]
    seen = np.unique(np.concatenate([np.ravel(m) for m in (*truths, *predictions)]))
    legend = [(class_names[c], colors[c]) for c in seen if c < len(class_names)]
    return picture_grid(rows, ("image", "truth", "prediction"), legend)


def save_masks(path, *args):
    """Writes `masks_figure(*args)` to a picture file."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    masks_figure(*args).savefig(path, dpi=150)
