"""Semantic grouping: prototypes, assignment logits, slots, and which are active."""

import keras
from keras import ops

from slotcon_tf.precision import at_least_float32

ASSIGNMENT_EPSILON = 1e-6  # an empty slot is the map's mean, not 0/0
NORM_EPSILON = 1e-12  # a zero vector stays zero; torch.nn.functional.normalize's


def l2_normalize(x):
    """Divides the last axis by its Euclidean norm, in float32 or better."""
    x = at_least_float32(x)
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(square, NORM_EPSILON**2))


@keras.saving.register_keras_serializable(package="slotcon_tf")
class SemanticGrouping(keras.layers.Layer):
    """K learnable prototypes, compared with every position of a map.

    `assignment_logits[b, h, w, k] = cosine(prototypes[k], features[b, h, w])`.

    Args:
        num_prototypes: K.

    Call arguments:
        inputs: Projected map (B, H, W, D).

    Returns:
        Assignment logits (B, H, W, K) in [-1, 1], float32 or better.

    Reference: Wen et al. 2022 (arXiv 2205.15288), section 3.1.
    """

    def __init__(self, *, num_prototypes, **kwargs):
        super().__init__(**kwargs)
        self.num_prototypes = num_prototypes

    def build(self, input_shape):
        self.prototypes = self.add_weight(
            name="prototypes",
            shape=(self.num_prototypes, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            autocast=False,
        )
        self.built = True

    def call(self, inputs):
        prototypes = l2_normalize(self.prototypes)  # (K, D)
        return ops.matmul(l2_normalize(inputs), ops.transpose(prototypes))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_prototypes)

    def get_config(self):
        return {**super().get_config(), "num_prototypes": self.num_prototypes}


def active_slots(assignment_logits):
    """Whether a prototype wins the argmax at one position of the image at least.

    Args:
        assignment_logits: (B, H, W, K).

    Returns:
        bool (B, K).
    """
    winners = ops.argmax(assignment_logits, axis=-1)  # (B, H, W)
    winners = ops.reshape(winners, (winners.shape[0] or -1, _positions(winners)))
    num_prototypes = assignment_logits.shape[-1]
    return ops.any(ops.one_hot(winners, num_prototypes, dtype="bool"), axis=1)


def pack_active(active, num_packed):
    """Indices of the active slots of each image, in rising order, active ones first.

    At most H*W prototypes can win a position, so `num_packed = min(K, H*W)` rows hold
    every active slot of an image: packing loses nothing, and its shape is static.

    Args:
        active: bool (B, K).
        num_packed: M.

    Returns:
        Tuple of indices int32 (B, M) and valid bool (B, M), False on filling rows
        (those hold indices of inactive prototypes).
    """
    num_prototypes = ops.shape(active)[-1]
    order = ops.arange(num_prototypes, dtype="int32")
    # Every key is unique: active ones above inactive ones, low indices first.
    key = ops.where(active, 2 * num_prototypes - order, num_prototypes - order)
    _, indices = ops.top_k(key, num_packed)  # (B, M)
    return indices, ops.take_along_axis(active, indices, axis=1)


def pack_rows(valid, multiple):
    """Indices of the valid rows, filled up with others to a multiple of a number.

    Args:
        valid: bool (S,).
        multiple: The number of indices is a multiple of it, or S.

    Returns:
        int32 (P,), P known at run time only: valid rows in rising order, then others.
    """
    num_rows = ops.shape(valid)[0]
    indices, _ = pack_active(valid[None], num_rows)
    count = ops.maximum(ops.sum(ops.cast(valid, "int32")), 1)
    count = -(-count // multiple) * multiple
    return indices[0, : ops.minimum(count, num_rows)]


def pool_slots(features, assignment_logits, temperature, indices=None):
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


def _positions(maps):
    """H * W; a number where the sizes are known, as in training."""
    height, width = ops.shape(maps)[1:3]
    return height * width
