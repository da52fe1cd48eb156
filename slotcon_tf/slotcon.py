"""SlotCon: student, teacher, center, and the training step."""

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf import replicas
from slotcon_tf.alignment import align
from slotcon_tf.backbones import as_encoder
from slotcon_tf.devices import dynamic_shapes_pay
from slotcon_tf.ema import teacher_update_rate, update_teacher
from slotcon_tf.grouping import (
    active_slots,
    l2_normalize,
    pack_active,
    pack_rows,
    pool_slots,
)
from slotcon_tf.heads import MLPHead
from slotcon_tf.losses import grouping_loss, slot_contrastive_loss
from slotcon_tf.network import GroupingNetwork, twin

# What `fit` reports, in this order.
METRICS = (
    "loss",
    "grouping_loss",
    "slot_contrastive_loss",
    "prototypes_used",
    "active_slots",
    "assignment_entropy",
    "agreement",
    "feature_std",
)
# Rows of the predictor, where their number may vary: every new number costs the CPU's
# kernels a set-up.
ROW_MULTIPLE = 64
BATCH_KEYS = (
    "view_a",
    "view_b",
    "overlap_a",
    "overlap_b",
    "flipped_a",
    "flipped_b",
)


@keras.saving.register_keras_serializable(package="slotcon_tf")
class SlotCon(keras.Model):
    """Self-supervised learning of groups and features from unlabelled scenes.

    A student predicts, on the overlap of two views, the assignments of its
    moving-average teacher (`grouping_loss`), and recognises the teacher's slots of the
    other view among those of all images (`slot_contrastive_loss`);
    `loss = grouping_weight * grouping + (1 - grouping_weight) * contrastive`, both
    directions summed.

    Args:
        encoder: Keras model, images (B, height, width, 3) to a channels-last map
            (B, H, W, C): `slotcon_tf.backbone("resnet50")`, or one of
            keras.applications (`include_top=False`), keras-cv, keras-hub.
            It becomes the student's encoder; the teacher gets a copy.
        total_steps: Optimizer steps of the run; the teacher stands still at its end.
        num_prototypes: K, 256 for COCO and 2048 for ImageNet.
        hidden_dim: Width of the heads' hidden layers.
        projection_dim: D.
        teacher_momentum: At step 0; it rises to 1 along a cosine.
        center_momentum: Share of the old center kept per step.
        student_temperature, teacher_temperature, contrastive_temperature: Of the
            softmaxes. The pooling of slots uses the teacher's for both networks.
        grouping_weight: Share of the grouping loss.

    Call arguments:
        inputs: Normalised images (B, height, width, 3).
        training: Whether batch normalisation uses batch statistics.

    Returns:
        The teacher's dict of `map`, `projected` and `assignment_logits`.
        `fit` takes batches as `slotcon_tf.data.crop_pair_dataset` makes them.

    Raises:
        ValueError: If the encoder is none, or a setting is out of range.

    Reference: Wen et al. 2022, "Self-Supervised Visual Representation Learning with
    Semantic Grouping" (arXiv 2205.15288).
    """

    def __init__(
        self,
        encoder,
        *,
        total_steps,
        num_prototypes=256,
        hidden_dim=4096,
        projection_dim=256,
        teacher_momentum=0.99,
        center_momentum=0.9,
        student_temperature=0.1,
        teacher_temperature=0.07,
        contrastive_temperature=0.2,
        grouping_weight=0.5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        encoder = as_encoder(encoder)
        _check_settings(
            positive={
                "total_steps": total_steps,
                "num_prototypes": num_prototypes,
                "hidden_dim": hidden_dim,
                "projection_dim": projection_dim,
                "student_temperature": student_temperature,
                "teacher_temperature": teacher_temperature,
                "contrastive_temperature": contrastive_temperature,
            },
            share={
                "teacher_momentum": teacher_momentum,
                "center_momentum": center_momentum,
                "grouping_weight": grouping_weight,
            },
        )
        self.total_steps = total_steps
        self.num_prototypes = num_prototypes
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.teacher_momentum = teacher_momentum
        self.center_momentum = center_momentum
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.contrastive_temperature = contrastive_temperature
        self.grouping_weight = grouping_weight

        sizes = {
            "num_prototypes": num_prototypes,
            "hidden_dim": hidden_dim,
            "projection_dim": projection_dim,
            "dtype": self.dtype_policy,
        }
        self.student = GroupingNetwork(encoder, name="student", **sizes)
        self.teacher = GroupingNetwork(twin(encoder), name="teacher", **sizes)
        self.teacher.set_weights(self.student.get_weights())
        self.predictor = MLPHead(
            hidden_dim=hidden_dim,
            output_dim=projection_dim,
            dtype=self.dtype_policy,
            name="predictor",
        )
        self.predictor.build((None, projection_dim))
        full = {"dtype": self.variable_dtype, "trainable": False, "autocast": False}
        self.center = self.add_weight(
            name="center", shape=(num_prototypes,), initializer="zeros", **full
        )
        # Not the optimizer's counter: the teacher moves on every step, also on those
        # whose update a loss scale skips.
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
        )
        self.trackers = {name: keras.metrics.Mean(name=name) for name in METRICS}
        self._freeze_teacher()
        self.built = True

    @property
    def encoder(self):
        """The student's encoder: the model that was passed in."""
        return self.student.encoder

    @property
    def metrics(self):
        return list(self.trackers.values())

    def _freeze_teacher(self):
        """Flags the teacher's variables, not its layers.

        A layer with `trainable=False` would normalise with moving statistics; the
        teacher must use those of its batch.
        """
        for variable in self.teacher.variables:
            variable.trainable = False

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds what `fit` needs without a batch.

        Under a strategy Keras 3.15 would take a batch off the stream and average it
        over replicas, which booleans do not survive; all but the optimizer is built.
        """
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    def call(self, inputs, training=False):
        return self.teacher(inputs, training=training)

    def network(self, which="teacher"):
        """The `GroupingNetwork` named "student" or "teacher"."""
        if which not in ("student", "teacher"):
            raise ValueError(
                "which must be 'student' or 'teacher'. "
                f"Received: which={which!r}. The teacher usually transfers as well."
            )
        return self.student if which == "student" else self.teacher

    def feature_extractor(self, which="teacher"):
        """A copy of the encoder, trainable, that goes its own way from here.

        Args:
            which: "teacher" or "student".

        Returns:
            Keras model of the encoder's class, images to a map (B, H, W, C).
        """
        source = self.network(which).encoder
        copy = twin(source)
        copy.set_weights(source.get_weights())
        return copy

    def compute_losses(self, batch, training=True):
        """Both losses of a batch of view pairs.

        Args:
            batch: Dict of view_a, view_b (B, size, size, 3), overlap_a, overlap_b
                (B, 4) and flipped_a, flipped_b bool (B,).
            training: Whether batch normalisation uses batch statistics.

        Returns:
            Tuple of the loss (this replica's share of the global mean), the sum over
            positions and images of both views' teacher logits (mean, (K,)), and a dict
            of this replica's diagnostics.
        """
        logits, teacher_logits, aligned, teacher_aligned = {}, {}, {}, {}
        projected, teacher_projected, maps = {}, {}, {}
        for v in "ab":
            out = self.student(batch[f"view_{v}"], training=training)
            projected[v], logits[v] = out["projected"], out["assignment_logits"]
            maps[v] = out["map"]
        for v in "ab":
            out = self.teacher(batch[f"view_{v}"], training=training)
            out = keras.tree.map_structure(ops.stop_gradient, out)
            teacher_projected[v] = out["projected"]
            teacher_logits[v] = out["assignment_logits"]
        with tf.name_scope("alignment"):
            for v in "ab":
                where = batch[f"overlap_{v}"], batch[f"flipped_{v}"]
                aligned[v] = align(logits[v], *where)
                teacher_aligned[v] = align(teacher_logits[v], *where)

        grouping = contrastive = agreement = 0.0
        for v, other in ("ab", "ba"):
            with tf.name_scope("grouping_loss"):
                loss, found = grouping_loss(
                    aligned[v],
                    teacher_aligned[other],
                    ops.convert_to_tensor(self.center),
                    student_temperature=self.student_temperature,
                    teacher_temperature=self.teacher_temperature,
                    num_replicas=replicas.num_replicas(),
                )
            grouping += loss
            agreement += found["agreement"] / 2.0
            with tf.name_scope("slot_contrastive_loss"):
                contrastive += self._contrastive(
                    projected[v],
                    logits[v],
                    teacher_projected[other],
                    teacher_logits[other],
                    training,
                )
        weight = self.grouping_weight
        loss = weight * grouping + (1.0 - weight) * contrastive
        both = ops.stack([teacher_logits["a"], teacher_logits["b"]])
        diagnostics = {
            "loss": loss,
            "grouping_loss": grouping,
            "slot_contrastive_loss": contrastive,
            "agreement": agreement,
            "feature_std": _feature_std(maps["a"]),
            "assignments": ops.mean(
                ops.softmax(both / self.teacher_temperature, axis=-1), axis=(0, 1, 2, 3)
            ),
            "active": ops.stack(
                [active_slots(teacher_logits[v]) for v in "ab"]
            ),  # (2, B, K)
        }
        return loss, ops.mean(both, axis=(0, 1, 2, 3)), diagnostics

    def _contrastive(
        self, projected, logits, teacher_projected, teacher_logits, training
    ):
        """One direction: queries of one view, keys of the teacher's other view.

        Queries and keys are packed by the keys' activity, so that row i of the queries
        and row i of the keys are the same prototype of the same image.
        """
        temperature = self.teacher_temperature
        num_packed = min(self.num_prototypes, logits.shape[1] * logits.shape[2])
        active = ops.stop_gradient(active_slots(logits))  # (B, K)
        indices, key_valid = pack_active(active_slots(teacher_logits), num_packed)
        query_valid = key_valid & ops.take_along_axis(active, indices, axis=1)
        queries = pool_slots(projected, logits, temperature, indices)  # (B, M, D)
        keys = pool_slots(teacher_projected, teacher_logits, temperature, indices)

        rows = (-1, self.projection_dim)
        query_valid = ops.reshape(query_valid, (-1,))  # (S,)
        key_valid = ops.cast(ops.reshape(key_valid, (-1, 1)), keys.dtype)
        keys = ops.stop_gradient(ops.reshape(keys, rows))
        # One collective for both: the mask travels as one more column.
        gathered = replicas.gather(ops.concatenate([keys, key_valid], axis=1))
        keys, key_valid = gathered[:, :-1], gathered[:, -1] > 0.5  # (G, D), (G,)
        queries = ops.reshape(queries, rows)  # (S, D)
        num_rows = ops.shape(queries)[0]
        labels = ops.arange(num_rows, dtype="int32")
        labels += replicas.replica_index() * num_rows
        num_queries = ops.sum(ops.cast(query_valid, keys.dtype))
        if dynamic_shapes_pay():
            kept = pack_rows(query_valid, ROW_MULTIPLE)  # (P,)
            queries, labels = ops.take(queries, kept, axis=0), ops.take(labels, kept)
            query_valid = ops.take(query_valid, kept)
        queries = self.predictor(queries, training=training, mask=query_valid)
        loss, _ = slot_contrastive_loss(
            queries,
            query_valid,
            keys,
            key_valid,
            labels=labels,
            num_queries=replicas.sum_over_replicas(num_queries),
            temperature=self.contrastive_temperature,
        )
        return loss

    def train_step(self, data):
        """One step: teacher, losses, student, center, in the original's order."""
        batch = _as_batch(data)
        self._freeze_teacher()  # `model.trainable = True` would have thawed it
        with tf.name_scope("teacher_update"):
            rate = teacher_update_rate(
                self.step, self.total_steps, self.teacher_momentum
            )
            update_teacher(self.teacher.parameters(), self.student.parameters(), rate)
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            loss, batch_center, diagnostics = self.compute_losses(batch)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        with tf.name_scope("center_update"):
            batch_center = replicas.mean_over_replicas(batch_center)
            old = self.center_momentum
            self.center.assign(self.center * old + batch_center * (1.0 - old))
            self.step.assign(self.step + 1)
        with tf.name_scope("health"):
            return self._track(diagnostics)

    def test_step(self, data):
        """Both losses with moving statistics; nothing is updated."""
        _, _, diagnostics = self.compute_losses(_as_batch(data), training=False)
        return self._track(diagnostics)

    def _track(self, diagnostics):
        """Reduces the diagnostics over replicas and adds them to the epoch's means."""
        diagnostics = dict(diagnostics)
        dtype = keras.config.floatx()
        active = ops.cast(diagnostics.pop("active"), dtype)
        assignments = diagnostics.pop("assignments")
        scalars = {k: ops.cast(v, dtype) for k, v in diagnostics.items()}
        summed = [scalars.pop(n) for n in METRICS[:3]]
        names = list(scalars)
        # One collective carries everything that the health metrics need.
        share = 1.0 / replicas.num_replicas()
        parts = [
            ops.stack(summed),
            ops.stack([scalars[n] for n in names]) * share,
            ops.mean(ops.sum(active, axis=-1))[None] * share,
            ops.cast(assignments, dtype) * share,
            ops.max(active, axis=(0, 1)),
        ]
        total = replicas.sum_over_replicas(ops.concatenate(parts))
        sizes = [p.shape[0] for p in parts]
        summed, means, per_image, assignments, used = tf.split(total, sizes)
        values = dict(zip(METRICS[:3], tf.unstack(summed), strict=True))
        values.update(zip(names, tf.unstack(means), strict=True))
        values["active_slots"] = per_image[0]
        values["prototypes_used"] = ops.sum(ops.cast(used > 0, dtype))
        entropy = -ops.sum(assignments * ops.log(assignments + 1e-12))
        values["assignment_entropy"] = entropy
        for name, tracker in self.trackers.items():
            tracker.update_state(values[name])
        return {name: tracker.result() for name, tracker in self.trackers.items()}

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "total_steps": self.total_steps,
            "num_prototypes": self.num_prototypes,
            "hidden_dim": self.hidden_dim,
            "projection_dim": self.projection_dim,
            "teacher_momentum": self.teacher_momentum,
            "center_momentum": self.center_momentum,
            "student_temperature": self.student_temperature,
            "teacher_temperature": self.teacher_temperature,
            "contrastive_temperature": self.contrastive_temperature,
            "grouping_weight": self.grouping_weight,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def _feature_std(maps):
    """Spread of the encoder's pooled, normalised features: 1 isotropic, 0 collapsed."""
    pooled = l2_normalize(ops.mean(maps, axis=(1, 2)))  # (B, C)
    return ops.mean(ops.std(pooled, axis=0)) * float(pooled.shape[-1]) ** 0.5


def _as_batch(data):
    batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    missing = [key for key in BATCH_KEYS if key not in batch]
    if missing:
        raise ValueError(
            f"A batch must be a dict with the keys {', '.join(BATCH_KEYS)}. Received: "
            f"no {', '.join(missing)}. slotcon_tf.data.crop_pair_dataset makes them."
        )
    if "distortion_a" in batch:
        # Here and not above: the model needs nothing else of the data package.
        from slotcon_tf.data.photometric import apply_distortions

        batch = apply_distortions(batch)
    return batch


def _check_settings(positive, share):
    for name, value in positive.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive. Received: {name}={value}.")
    for name, value in share.items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"{name} must lie between 0 and 1. Received: {name}={value}."
            )
