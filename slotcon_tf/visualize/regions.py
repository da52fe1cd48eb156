"""Where regions of a label map are: components, and points well inside them."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Point(NamedTuple):
    """A pixel of a region, and its distance to the nearest pixel outside, in pixels."""

    label: int
    row: int
    column: int
    radius: float


def region_points(labels, least_radius=np.inf):
    """Points well inside the regions of a label map.

    Args:
        labels: int (H, W).
        least_radius: Besides each label's largest component, others are given if a
            circle of this radius in pixels fits into them.

    Returns:
        List of `Point`, by label, the largest component first. The border of the map
        counts as outside.
    """
    points = []
    for label in np.unique(labels):
        components, count = ndimage.label(labels == label)
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        boxes = ndimage.find_objects(components)
        for rank, index in enumerate(np.argsort(-sizes, kind="stable")):
            if rank and sizes[index] < np.pi * least_radius**2 / 2:
                break
            box = boxes[index]
            inside = np.pad(components[box] == index + 1, 1)
            distance = ndimage.distance_transform_edt(inside)
            row, column = np.unravel_index(distance.argmax(), distance.shape)
            radius = float(distance[row, column])
            if rank == 0 or radius >= least_radius:
                row, column = row - 1 + box[0].start, column - 1 + box[1].start
                points.append(Point(int(label), int(row), int(column), radius))
    return points


def grown(region, pixels):
    """A region bool (H, W) and all pixels up to a distance from it."""
    if not region.any():
        return region.copy()
    return ndimage.distance_transform_edt(~region) <= pixels
