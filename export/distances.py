"""How far two exports may be apart, for `export.compare` as a gate."""

from __future__ import annotations

from typing import Any

import numpy as np

from slotcon_tf.runs.command import CommandError


class TooFar(CommandError):
    """Two exports are further apart than they may be; the command ends with status 1.

    Example:
        >>> TooFar("pooled of a.jpg is 0.1 away.").status
        1
    """


def check(
    found: dict[str, Any],
    max_distance: float | None = None,
    max_group_distance: float | None = None,
) -> None:
    """Refuses what is further apart than it may be.

    Args:
        found: Of `export.compare.compare`.
        max_distance: Of the features of an image: the length of their difference, as
            share of the first's. None: any.
        max_group_distance: Of its groups: 1 - adjusted Rand index. None: any.

    Raises:
        TooFar: It names the output, the image and the distance.
        ValueError: If groups are to be near, and an export has none.

    Example:
        >>> found = {"distance": np.array([0, 0.1]), "images": ["a.jpg", "b.jpg"]}
        >>> check(found, max_distance=0.2)
        >>> check(found, max_distance=0.01)
        Traceback (most recent call last):
        export.distances.TooFar: `pooled` must be within 0.01 (share of the length). \
Received: 0.1 for b.jpg, the furthest of 1 of 2 images.
    """
    if max_distance is None and max_group_distance is None:
        return
    if found.get("missing"):
        raise TooFar(
            "The second export must have all signatures and outputs of the first. "
            f"Received: none of {', '.join(found['missing'])}."
        )
    if found.get("apart"):
        name, (first, second) = next(iter(found["apart"].items()))
        raise TooFar(
            f"Both exports must decode the same images. Received: {name}, {first} of "
            f"the first and {second} of the second; {len(found['apart'])} such images."
        )
    for output, key, measure, most in (
        ("pooled", "distance", "share of the length", max_distance),
        (
            *("assignments", "rand_index", "1 - adjusted Rand index"),
            max_group_distance,
        ),
    ):
        if most is None:
            continue
        if key not in found:
            raise ValueError(
                f"`max_group_distance` needs groups in both exports. Received: "
                f"max_group_distance={most}, and none in one. Leave it out."
            )
        distances = np.asarray(found[key])
        if key == "rand_index":
            distances = 1.0 - distances
        far = ~(distances <= most)  # NaN is far
        if far.any():
            worst = int(np.argmax(np.where(np.isnan(distances), np.inf, distances)))
            raise TooFar(
                f"`{output}` must be within {most:g} ({measure}). Received: "
                f"{distances[worst]:.3g} for {found['images'][worst]}, the furthest of "
                f"{far.sum()} of {len(far)} images."
            )
