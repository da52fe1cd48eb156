"""The two losses, as pure functions of logits, slots and masks.

Each returns `(loss, diagnostics)`. A loss is this replica's *share*: the shares of
all replicas add up to the mean over the global batch, so that gradients which a
strategy sums over replicas are those of one device.
"""

from keras import ops

from slotcon_tf.method.grouping import l2_normalize


def grouping_loss(
    student_logits,
    teacher_logits,
    center,
    *,
    student_temperature=0.1,
    teacher_temperature=0.07,
    num_replicas=1,
):
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
    """
    teacher_logits = ops.stop_gradient(teacher_logits - center)
    targets = ops.softmax(teacher_logits / teacher_temperature, axis=-1)
    log_student = ops.log_softmax(student_logits / student_temperature, axis=-1)
    cross_entropy = -ops.sum(targets * log_student, axis=-1)  # (B, H, W)
    same = ops.argmax(student_logits, axis=-1) == ops.argmax(teacher_logits, axis=-1)
    agreement = ops.mean(ops.cast(same, cross_entropy.dtype))
    return ops.mean(cross_entropy) / num_replicas, {"agreement": agreement}


def slot_contrastive_loss(
    queries,
    query_valid,
    keys,
    key_valid,
    *,
    labels,
    num_queries,
    temperature=0.2,
):
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
        Tuple of the scalar loss (this replica's share) and an empty dict.

    Reference: Wen et al. 2022 (arXiv 2205.15288), equation 5.
    Differs: the mean runs over the queries of all replicas, where the original
    averages every process's own mean; the loss then does not depend on their number.
    """
    keys = ops.stop_gradient(l2_normalize(keys))
    logits = ops.matmul(l2_normalize(queries), ops.transpose(keys)) / temperature
    # The label of an invalid query may be an invalid key: a finite floor keeps its
    # (unused) row free of inf - inf.
    floor = -1e4
    logits = ops.where(key_valid[None, :], logits, floor)  # (S, G)
    positive = ops.take_along_axis(logits, labels[:, None], axis=1)[:, 0]  # (S,)
    cross_entropy = ops.logsumexp(logits, axis=1) - positive
    weight = ops.cast(query_valid, cross_entropy.dtype)
    count = ops.maximum(ops.cast(num_queries, cross_entropy.dtype), 1.0)
    total = ops.sum(ops.where(query_valid, cross_entropy, 0.0) * weight)
    return 2.0 * temperature * total / count, {}
