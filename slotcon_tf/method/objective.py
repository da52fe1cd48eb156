"""SlotCon's objective as pure functions, in the order of the paper's section 3.

    assignment logits   `cosine`        of every position and prototype   section 3.1
    slots               `pool_slots`    and which are `active_slots`      section 3.1
    alignment           `align`         of two views onto their overlap   section 3.2
    grouping            `grouping_loss`                                   equation 3
    contrast            `pack_pairs`, `slot_contrastive_loss`             equation 5

Axes: B images, H x W cells of a map, D projection, K prototypes, M = min(K, H*W) packed
slots of an image, S = B*M of a replica, G = S * replicas.

A loss is this replica's *share*: the shares of all replicas add up to the mean over the
global batch, so that gradients which a strategy sums over replicas are those of one
device.

Frames. A map of H x W cells covers [0, 1] x [0, 1] of its crop; cell (i, j) has its
centre at ((j + 0.5) / W, (i + 0.5) / H), x before y (half-pixel centres). An overlap
box is (x_min, y_min, x_max, y_max) in that frame, of the view as the network sees it:
after the crop's flips and turns.

Reference: Wen et al. 2022 (arXiv 2205.15288).
"""

from __future__ import annotations

from typing import Any

from keras import ops

from slotcon_tf.devices import at_least_float32
from slotcon_tf.types import Tensor

ASSIGNMENT_EPSILON = 1e-6  # an empty slot is the map's mean, not 0/0
NORM_EPSILON = 1e-12  # a zero vector stays zero; torch.nn.functional.normalize's
# The label of a query that does not count may be a key that does not count: a finite
# floor keeps its (unused) row free of inf - inf.
_LOGIT_FLOOR = -1e4


def l2_normalize(x: Tensor) -> Tensor:
    """Divides the last axis by its Euclidean norm, in float32 or better.

    Args:
        x: (..., D).

    Returns:
        (..., D) of length 1; zeros stay zeros.

    Example:
        >>> l2_normalize(ops.array([[3.0, 4.0], [0.0, 0.0]])).numpy().round(3).tolist()
        [[0.6..., 0.8...], [0.0, 0.0]]
    """
    x = at_least_float32(x)
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(square, NORM_EPSILON**2))


def cosine(features: Tensor, prototypes: Tensor) -> Tensor:
    """Assignment logits: `cosine(features[b, h, w], prototypes[k])`.

    Args:
        features: Projected map (B, H, W, D).
        prototypes: (K, D).

    Returns:
        (B, H, W, K) in [-1, 1], float32 or better.

    Example:
        >>> cosine(ops.ones((2, 7, 7, 4)), ops.ones((3, 4))).shape
        TensorShape([2, 7, 7, 3])
    """
    prototypes = l2_normalize(prototypes)  # (K, D)
    return ops.matmul(l2_normalize(features), ops.transpose(prototypes))


def pool_slots(
    features: Tensor,
    assignment_logits: Tensor,
    temperature: float,
    indices: Tensor | None = None,
) -> Tensor:
    """Slots: averages of a map, weighted by the assignments.

    The weights are softmax over the K prototypes, plus `ASSIGNMENT_EPSILON`,
    normalised over the positions. Only the rows in `indices` are pooled.

    Args:
        features: Projected map (B, H, W, D), not normalised.
        assignment_logits: (B, H, W, K).
        temperature: Of the softmax.
        indices: int32 (B, M) of prototypes to pool, or None for all K in order.

    Returns:
        Slots (B, M, D) or (B, K, D), float32 or better.

    Example:
        >>> pool_slots(ops.ones((2, 7, 7, 4)), ops.zeros((2, 7, 7, 3)), 0.07).shape
        TensorShape([2, 3, 4])
    """
    batch, num_positions = features.shape[0] or -1, _positions(features[..., 0])
    features = at_least_float32(features)
    features = ops.reshape(features, (batch, num_positions, features.shape[-1]))
    assignments = ops.softmax(assignment_logits / temperature, axis=-1)
    assignments = ops.reshape(
        assignments, (batch, num_positions, assignment_logits.shape[-1])
    )
    weights = ops.transpose(assignments, (0, 2, 1)) + ASSIGNMENT_EPSILON  # (B, K, HW)
    if indices is not None:
        weights = ops.take_along_axis(weights, indices[..., None], axis=1)  # (B, M, HW)
    weights = weights / ops.sum(weights, axis=-1, keepdims=True)
    return ops.matmul(weights, features)  # (B, M, D)


def active_slots(assignment_logits: Tensor) -> Tensor:
    """Whether a prototype wins the argmax at one position of the image at least.

    Args:
        assignment_logits: (B, H, W, K).

    Returns:
        bool (B, K).

    Example:
        >>> active_slots(ops.array([[[[0.1, 0.7], [0.2, 0.9]]]])).numpy().tolist()
        [[False, True]]
    """
    winners = ops.argmax(assignment_logits, axis=-1)  # (B, H, W)
    winners = ops.reshape(winners, (winners.shape[0] or -1, _positions(winners)))
    num_prototypes = assignment_logits.shape[-1]
    return ops.any(ops.one_hot(winners, num_prototypes, dtype="bool"), axis=1)


def _positions(maps: Tensor) -> Any:
    """H * W; a number where the sizes are known, as in training."""
    height, width = ops.shape(maps)[1:3]
    return height * width


def align(
    maps: Tensor,
    overlap: Tensor,
    flipped: Tensor,
    upended: Tensor | None = None,
    transposed: Tensor | None = None,
) -> Tensor:
    """ROI-align of the overlap box to the full grid, then flips and turns undone.

    Exactly torchvision's `roi_align(..., aligned=True)` with adaptive sampling for
    every box no larger than the map: such a box takes one sample per cell, so the
    operation is a matrix on the rows and one on the columns. A flip reverses the
    order of a matrix's samples. Boxes without area give zeros.

    Args:
        maps: (B, H, W, K).
        overlap: (B, 4) boxes (x_min, y_min, x_max, y_max) in the crop's frame.
        flipped: bool (B,), whether the crop was flipped horizontally.
        upended: bool (B,), whether it was flipped vertically; None: none was.
        transposed: bool (B,), whether rows and columns changed places before the flips
            (`slotcon_tf.data.crops`), for square maps; None: of none.

    Returns:
        (B, H, W, K), in the scene's orientation.

    Raises:
        ValueError: If maps that are not square were turned by quarters.

    Example:
        >>> maps, whole = ops.ones((1, 2, 2, 3)), ops.array([[0.0, 0.0, 1.0, 1.0]])
        >>> bool(ops.all(align(maps, whole, ops.array([True])) == maps))
        True
    """
    height, width = maps.shape[1:3]
    edges: Tensor = ops.unstack(overlap, num=4, axis=-1)
    x_min, y_min, x_max, y_max = edges  # (B,) each
    rows = _sampling_matrix(y_min, y_max, height, maps.dtype)  # (B, H', H)
    columns = _sampling_matrix(x_min, x_max, width, maps.dtype)  # (B, W', W)
    columns = ops.where(flipped[:, None, None], ops.flip(columns, axis=1), columns)
    if upended is not None:
        rows = ops.where(upended[:, None, None], ops.flip(rows, axis=1), rows)
    aligned = ops.einsum("bih,bjw,bhwk->bijk", rows, columns, maps)
    if transposed is None:
        return aligned
    if height != width:
        raise ValueError(
            "Views that were turned by quarters must give square maps. "
            f"Received: {height} x {width} cells. Leave rotate90 out."
        )
    other = ops.swapaxes(aligned, 1, 2)
    return ops.where(transposed[:, None, None, None], other, aligned)


def _sampling_matrix(low: Tensor, high: Tensor, size: int, dtype: Any) -> Tensor:
    """Bilinear weights that read `size` evenly spaced samples of [low, high].

    Args:
        low, high: (B,) box edges along one axis, in [0, 1].
        size: Number of cells of the map, and of the samples.

    Returns:
        (B, size samples, size cells). Rows of an empty or inverted box are 0, as are
        samples more than one cell outside the map.
    """
    low = ops.cast(low, dtype)[:, None] * size  # (B, 1), in cells
    extent = ops.cast(high, dtype)[:, None] * size - low
    cells = ops.arange(size, dtype=dtype)
    position = low - 0.5 + (cells + 0.5) * (extent / size)  # (B, samples)
    inside = (position >= -1.0) & (position <= size) & (extent > 0.0)
    position = ops.clip(position, 0.0, size - 1.0)
    # A hat function around each cell's centre is linear interpolation.
    weights = ops.relu(1.0 - ops.abs(position[..., None] - cells))
    return weights * ops.cast(inside[..., None], dtype)


def grouping_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    num_replicas: int = 1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the student's assignments against the teacher's.

    `-sum_k softmax((teacher - center) / teacher_temperature)_k
    * log_softmax(student / student_temperature)_k`, mean over images and positions.
    Positions without overlap hold zeros in both maps and enter all the same.

    Args:
        student_logits: Aligned assignment logits (B, H, W, K).
        teacher_logits: Aligned logits of the *other* view (B, H, W, K); no gradient.
        center: (K,) running mean of the teacher's logits.
        student_temperature, teacher_temperature: Of the two softmaxes.
        num_replicas: Replicas of equal batch size that share the mean.

    Returns:
        Tuple of the scalar loss (this replica's share) and diagnostics:
        `agreement`, the share of positions with the same winner (this replica's).

    Reference: Wen et al. 2022 (arXiv 2205.15288), equation 3.

    Example:
        >>> logits, center = ops.array([[[[0.9, -0.9]]]]), ops.zeros(2)
        >>> temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.07}
        >>> loss, found = grouping_loss(logits, logits, center, **temperatures)
        >>> float(loss) < 1e-6, float(found["agreement"])
        (True, 1.0)
    """
    teacher_logits = ops.stop_gradient(teacher_logits - center)
    targets = ops.softmax(teacher_logits / teacher_temperature, axis=-1)
    log_student = ops.log_softmax(student_logits / student_temperature, axis=-1)
    cross_entropy = -ops.sum(targets * log_student, axis=-1)  # (B, H, W)
    same = ops.argmax(student_logits, axis=-1) == ops.argmax(teacher_logits, axis=-1)
    agreement = ops.mean(ops.cast(same, cross_entropy.dtype))
    return ops.mean(cross_entropy) / num_replicas, {"agreement": agreement}


def pack_active(active: Tensor, num_packed: int) -> tuple[Tensor, Tensor]:
    """Indices of the active slots of each image, in rising order, active ones first.

    At most H*W prototypes can win a position, so `num_packed = min(K, H*W)` rows hold
    every active slot of an image: packing loses nothing, and its shape is static.

    Args:
        active: bool (B, K).
        num_packed: M.

    Returns:
        Tuple of indices int32 (B, M) and valid bool (B, M), False on filling rows
        (those hold indices of inactive prototypes).

    Example:
        >>> indices, valid = pack_active(ops.array([[False, True, False, True]]), 3)
        >>> indices.numpy().tolist(), valid.numpy().tolist()
        ([[1, 3, 0]], [[True, True, False]])
    """
    num_prototypes = ops.shape(active)[-1]
    order = ops.arange(num_prototypes, dtype="int32")
    # Every key is unique: active ones above inactive ones, low indices first.
    key = ops.where(active, 2 * num_prototypes - order, num_prototypes - order)
    first: Tensor = ops.top_k(key, num_packed)
    _, indices = first  # (B, M)
    return indices, ops.take_along_axis(active, indices, axis=1)


def pack_rows(valid: Tensor, multiple: int) -> Tensor:
    """Indices of the valid rows, filled up with others to a multiple of a number.

    Args:
        valid: bool (S,).
        multiple: The number of indices is a multiple of it, or S.

    Returns:
        int32 (P,), P known at run time only: valid rows in rising order, then others.

    Example:
        >>> pack_rows(ops.array([False, True, False, False, True]), 2).numpy().tolist()
        [1, 4]
    """
    num_rows: Tensor = ops.shape(valid)[0]
    indices, _ = pack_active(valid[None], num_rows)
    count = ops.maximum(ops.sum(ops.cast(valid, "int32")), 1)
    count = -(-count // multiple) * multiple
    return indices[0, : ops.minimum(count, num_rows)]


def pack_pairs(
    student: dict[str, Tensor], teacher: dict[str, Tensor], temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slots of one view of the student, and of the teacher's other view, in pairs.

    Both are packed by the keys' activity, so that row i of the queries and row i of the
    keys are the same prototype of the same image. A query counts where its prototype is
    active in both views.

    Args:
        student, teacher: Dicts of `projected` (B, H, W, D) and `assignment_logits`
            (B, H, W, K).
        temperature: Of the pooling.

    Returns:
        Tuple of queries (S, D), whether each counts, bool (S,), keys (S, D), without
        gradient, and whether each counts, bool (S,).

    Example:
        >>> view = {"projected": ops.ones((2, 2, 2, 5))}
        >>> view["assignment_logits"] = ops.zeros((2, 2, 2, 8))  # the first wins all
        >>> queries, counts, _, _ = pack_pairs(view, view, 0.07)
        >>> queries.shape, int(ops.sum(ops.cast(counts, "int32")))
        (TensorShape([8, 5]), 2)
    """
    logits, key_logits = student["assignment_logits"], teacher["assignment_logits"]
    _, height, width, num_prototypes = logits.shape
    num_packed = min(num_prototypes, height * width)  # M
    active = ops.stop_gradient(active_slots(logits))  # (B, K)
    indices, key_valid = pack_active(active_slots(key_logits), num_packed)  # (B, M)
    query_valid = key_valid & ops.take_along_axis(active, indices, axis=1)  # (B, M)
    queries = pool_slots(student["projected"], logits, temperature, indices)
    keys = pool_slots(teacher["projected"], key_logits, temperature, indices)
    rows = (-1, queries.shape[-1])
    return (
        ops.reshape(queries, rows),
        ops.reshape(query_valid, (-1,)),
        ops.stop_gradient(ops.reshape(keys, rows)),
        ops.reshape(key_valid, (-1,)),
    )


def slot_contrastive_loss(
    queries: Tensor,
    query_valid: Tensor,
    keys: Tensor,
    key_valid: Tensor,
    *,
    labels: Tensor,
    num_queries: Tensor,
    temperature: float,
) -> Tensor:
    """InfoNCE between predicted slots and the teacher's slots of all images.

    `2 * temperature * mean_i cross_entropy(cosine(query_i, keys) / temperature,
    label_i)`; keys that are not valid are no candidates. Zero where no query is valid.

    Args:
        queries: Predicted student slots (S, D).
        query_valid: bool (S,).
        keys: Teacher slots of every replica (G, D); no gradient.
        key_valid: bool (G,).
        labels: int (S,), each query's own key.
        num_queries: Valid queries of all replicas, scalar.
        temperature: Of the softmax.

    Returns:
        Scalar loss, this replica's share.

    Reference: Wen et al. 2022 (arXiv 2205.15288), equation 5.
    Differs: the mean runs over the queries of all replicas, where the original
    averages every process's own mean; the loss then does not depend on their number.

    Example:
        >>> slots, valid = ops.eye(3), ops.array([True, True, False])
        >>> loss = slot_contrastive_loss(slots, valid, slots, valid,
        ...     labels=ops.arange(3), num_queries=2, temperature=0.2)
        >>> round(float(loss), 4)  # 2 * 0.2 * log(1 + exp(-1 / 0.2))
        0.0027
    """
    keys = ops.stop_gradient(l2_normalize(keys))
    logits = ops.matmul(l2_normalize(queries), ops.transpose(keys)) / temperature
    logits = ops.where(key_valid[None, :], logits, _LOGIT_FLOOR)  # (S, G)
    positive = ops.take_along_axis(logits, labels[:, None], axis=1)[:, 0]  # (S,)
    cross_entropy = ops.logsumexp(logits, axis=1) - positive
    weight = ops.cast(query_valid, cross_entropy.dtype)
    count = ops.maximum(ops.cast(num_queries, cross_entropy.dtype), 1.0)
    total = ops.sum(ops.where(query_valid, cross_entropy, 0.0) * weight)
    return 2.0 * temperature * total / count
