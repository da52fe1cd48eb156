"""Connected parts of groups as objects of their own, inside the graph that is served.

A group is all positions that one prototype wins, wherever they lie: two cars are one.
Its parts here are what hangs together, position by position, at the resolution of the
encoder's map.
"""

from __future__ import annotations

import tensorflow as tf

from slotcon_tf.method.objective import l2_normalize
from slotcon_tf.types import Tensor


def connected_parts(values: Tensor) -> Tensor:
    """Labels of the connected parts of equal values.

    Two positions are connected if they share an edge (4-connectivity; corners do not
    count) and a value. Every position takes the smallest label among itself and its
    neighbours, and then the label of the position that this names; labels go over long
    ways in few rounds. The rounds end when nothing changes, and after H * W at most.

    Args:
        values: int (N, H, W).

    Returns:
        int32 (N, H, W): of each position, the smallest index y * W + x of its part.

    Example:
        >>> values = tf.constant([[[7, 0, 7], [7, 0, 0]]])
        >>> connected_parts(values).numpy().tolist()
        [[[0, 1, 2], [0, 1, 1]]]
    """
    shape = tf.shape(values)
    height, width = shape[1], shape[2]
    count = height * width
    right = values[:, :, 1:] == values[:, :, :-1]
    below = values[:, 1:] == values[:, :-1]
    # Whether a position hangs together with the one left, right, above and below it.
    joined = (
        tf.pad(right, [[0, 0], [0, 0], [1, 0]]),
        tf.pad(right, [[0, 0], [0, 0], [0, 1]]),
        tf.pad(below, [[0, 0], [1, 0], [0, 0]]),
        tf.pad(below, [[0, 0], [0, 1], [0, 0]]),
    )

    def round_(labels, _):
        padded = tf.pad(labels, [[0, 0], [1, 1], [1, 1]])
        beside = (
            padded[:, 1:-1, :-2],
            padded[:, 1:-1, 2:],
            padded[:, :-2, 1:-1],
            padded[:, 2:, 1:-1],
        )
        least = labels
        for join, label in zip(joined, beside, strict=True):
            least = tf.where(join, tf.minimum(least, label), least)
        flat = tf.reshape(least, [-1, count])
        named = tf.reshape(tf.gather(flat, flat, batch_dims=1), shape)
        return named, tf.reduce_any(named != labels)

    own = tf.broadcast_to(tf.reshape(tf.range(count), [1, height, width]), shape)
    labels, _ = tf.while_loop(
        lambda _, changed: changed,
        round_,
        (own, tf.constant(True)),
        # Its shape, as the loop wants it: what goes in has more of it known.
        shape_invariants=(tf.TensorShape([None, None, None]), tf.TensorShape([])),
        maximum_iterations=count,
    )
    return tf.ensure_shape(labels, values.shape)


def largest_instances(
    projected: Tensor,
    logits: Tensor,
    temperature: float,
    *,
    max_instances: int,
    min_area: float,
) -> dict[str, Tensor]:
    """The connected parts of groups, the largest first.

    Args:
        projected: Projected map (N, h, w, D).
        logits: Assignment logits (N, h, w, K).
        temperature: Of the assignments.
        max_instances: M; smaller ones are dropped.
        min_area: Smaller parts are none, as share of the image.

    Returns:
        Dict of `vector` (N, M, D), the mean of the projected map over the part,
        weighted by the assignments, of length 1; `prototype` int32 (N, M); `area`
        (N, M), share of the image; `box` (N, M, 4) as x_min, y_min, x_max, y_max in
        [0, 1]; `score` (N, M), the mean over the part of its prototype's share of the
        softmax; `mask` bool (N, M, h, w), the part's positions; `valid` bool (N, M).
        Zeros where not valid.

    Example:
        >>> logits = tf.one_hot([[[2, 0, 2], [2, 0, 0]]], 3)  # (1, 2, 3, 3)
        >>> found = largest_instances(
        ...     tf.ones([1, 2, 3, 5]), logits, 0.07, max_instances=4, min_area=0.2
        ... )
        >>> found["prototype"].numpy().tolist(), found["valid"].numpy().tolist()
        ([[0, 2, 0, 0]], [[True, True, False, False]])
    """
    size = tf.shape(logits)[1:3]
    count = size[0] * size[1]
    winners = tf.argmax(logits, axis=-1, output_type=tf.int32)  # (N, h, w)
    shares = tf.nn.softmax(tf.cast(logits, tf.float32) / temperature)
    shares = tf.reshape(tf.reduce_max(shares, axis=-1), [-1, count])  # (N, P)
    labels = tf.reshape(connected_parts(winners), [-1, count])
    winners = tf.reshape(winners, [-1, count])
    positions = _counts(labels, count)  # (N, P), at each part's label; 0 elsewhere
    areas = tf.cast(positions, tf.float32) / tf.cast(count, tf.float32)
    positions = tf.where(areas >= min_area, positions, 0)
    # A map may have fewer positions than there are places for parts.
    positions = tf.pad(positions, [[0, 0], [0, max_instances]])
    positions, ids = tf.math.top_k(positions, max_instances)  # (N, M)
    valid: Tensor = positions > 0
    ids = tf.where(valid, ids, 0)
    masks = labels[:, None] == tf.expand_dims(ids, -1)  # (N, M, P)
    masks &= tf.expand_dims(valid, -1)
    weights = tf.where(masks, shares[:, None], 0.0)
    projected = tf.reshape(projected, [-1, count, projected.shape[-1]])
    slots = tf.einsum("nmp,npd->nmd", weights, tf.cast(projected, tf.float32))
    number = tf.maximum(tf.cast(positions, tf.float32), 1.0)
    full = [-1, max_instances, size[0], size[1]]
    masks = tf.reshape(masks, tf.stack(full))
    found = {
        "vector": l2_normalize(slots),
        "prototype": tf.gather(winners, ids, batch_dims=1),
        "area": tf.cast(positions, tf.float32) / tf.cast(count, tf.float32),
        "box": boxes_of(masks),
        "score": tf.reduce_sum(weights, axis=-1) / number,
        "mask": masks,
    }
    return zeros_unless(valid, found)


def boxes_of(masks: Tensor) -> Tensor:
    """The smallest boxes around masks, as shares of the image.

    Args:
        masks: bool (N, S, h, w).

    Returns:
        float32 (N, S, 4): x_min, y_min, x_max, y_max in [0, 1]; (1, 1, 0, 0) of an
        empty mask.

    Example:
        >>> boxes_of(tf.constant([[[[False, True], [False, True]]]])).numpy().tolist()
        [[[0.5, 0.0, 1.0, 1.0]]]
    """
    ends = []
    for axis in (2, 3):
        there = tf.reduce_any(masks, axis=axis)  # (N, S, length)
        length = tf.shape(there)[-1]
        places = tf.range(length)
        first = tf.reduce_min(tf.where(there, places, length), axis=-1)
        last = tf.reduce_max(tf.where(there, places + 1, 0), axis=-1)
        ends.append([tf.cast(end, tf.float32) for end in (first, last)])
        ends[-1] = [end / tf.cast(length, tf.float32) for end in ends[-1]]
    (x_min, x_max), (y_min, y_max) = ends
    return tf.stack([x_min, y_min, x_max, y_max], axis=-1)


def zeros_unless(valid: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is found, zeros in the rows that are not valid, and `valid`.

    Args:
        valid: bool (N, S).
        found: Dict of name to (N, S, ...).

    Example:
        >>> found = zeros_unless(tf.constant([[False]]), {"area": tf.ones([1, 1])})
        >>> found["area"].numpy().tolist(), list(found)
        ([[0.0]], ['area', 'valid'])
    """

    def kept(value):
        rows = valid[(..., *[None] * (value.shape.rank - 2))]
        return tf.where(rows, value, tf.zeros([], value.dtype))

    return {**{name: kept(value) for name, value in found.items()}, "valid": valid}


def _counts(labels, count):
    """How many positions of each image have each label: (N, count)."""
    images = tf.shape(labels)[0]
    apart = labels + tf.range(images)[:, None] * count
    ones = tf.ones_like(apart)
    found = tf.math.unsorted_segment_sum(ones, apart, images * count)
    return tf.reshape(found, [images, count])
