"""SlotCon's training step: what the losses are made of, and who learns from them."""

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.devices import dynamic_shapes_pay
from slotcon_tf.method.alignment import align
from slotcon_tf.method.grouping import active_slots, pack_active, pack_rows, pool_slots
from slotcon_tf.method.health import feature_std, global_metrics, scalars_of
from slotcon_tf.method.losses import grouping_loss, slot_contrastive_loss
from slotcon_tf.precision import at_least_float32
from slotcon_tf.training import replicas
from slotcon_tf.training.accumulation import accumulate
from slotcon_tf.training.batches import BATCH_KEYS as BATCH_KEYS  # it was here once
from slotcon_tf.training.batches import as_batch
from slotcon_tf.training.ema import teacher_update_rate, update_teacher
from slotcon_tf.training.fitting import Fitting

# Rows of the predictor, where their number may vary: every new number costs the CPU's
# kernels a set-up.
ROW_MULTIPLE = 64
# What `SlotCon.nonfinite` counts: steps by what was not finite, and steps skipped.
NONFINITE = ("grouping_loss", "slot_contrastive_loss", "gradients", "skipped")
TURN_KEYS = ("upended", "transposed")  # of each view, where they were turned at all


class TrainingStep(Fitting):
    """`train_step` and `test_step` of a model that holds what `SlotCon` holds.

    Student, teacher, predictor, center, step, trackers and the settings are made by
    the subclass; nothing here knows how.
    """

    def compute_losses(self, batch, training=True):
        """Both losses of a batch of view pairs.

        Args:
            batch: Dict of view_a, view_b (B, size, size, 3), overlap_a, overlap_b
                (B, 4) and flipped_a, flipped_b bool (B,); and where views were turned
                upended_a, upended_b, transposed_a, transposed_b bool (B,).
            training: Whether batch normalisation uses batch statistics.

        Returns:
            Tuple of the loss (this replica's share of the global mean), the mean over
            positions and images of both views' teacher logits (K,), and a dict of this
            replica's diagnostics. A subclass may add scalars of its own: `fit` shows
            the step's, or the epoch's mean where `self.trackers` has a
            keras.metrics.Mean of that name.
        """
        self._freeze_teacher()
        logits, teacher_logits, aligned, teacher_aligned = {}, {}, {}, {}
        projected, teacher_projected, maps, added = {}, {}, {}, []
        for v in "ab":
            out = self.student(batch[f"view_{v}"], training=training)
            added += [loss / 2.0 for loss in self._added_by_call()]
            projected[v], logits[v] = out["projected"], out["assignment_logits"]
            maps[v] = out["map"]
        for v in "ab":
            out = self.teacher(batch[f"view_{v}"], training=training)
            out = keras.tree.map_structure(ops.stop_gradient, out)
            teacher_projected[v] = out["projected"]
            teacher_logits[v] = out["assignment_logits"]
        with tf.name_scope("alignment"):
            for v in "ab":
                where = [batch[f"overlap_{v}"], batch[f"flipped_{v}"]]
                # Of views that were turned as well.
                where += [batch.get(f"{turn}_{v}") for turn in TURN_KEYS]
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
        added += self._regularization()
        own = {}
        if added:
            own["added_loss"] = sum(added)
            loss += own["added_loss"] / replicas.num_replicas()
        both = ops.stack([teacher_logits["a"], teacher_logits["b"]])
        diagnostics = {
            **own,
            "loss": loss,
            "grouping_loss": grouping,
            "slot_contrastive_loss": contrastive,
            "agreement": agreement,
            "feature_std": feature_std(maps["a"]),
            "assignments": ops.mean(
                ops.softmax(both / self.teacher_temperature, axis=-1), axis=(0, 1, 2, 3)
            ),
            "active": ops.stack(
                [active_slots(teacher_logits[v]) for v in "ab"]
            ),  # (2, B, K)
        }
        return loss, ops.mean(both, axis=(0, 1, 2, 3)), diagnostics

    def _added_by_call(self):
        """What the encoder's layers have just added to the loss."""
        layers = [x for x in self.encoder._flatten_layers() if x._get_own_losses()]
        names = ", ".join(layer.name for layer in layers)
        if names and self.remat:
            raise ValueError(
                "remat cannot recompute layers that add losses of their outputs. "
                f"Received: an encoder whose layers {names} do. Set remat=False."
            )
        if names and replicas.num_replicas() > 1:
            # Keras keeps them in the layers, where replicas overwrite each other's.
            raise ValueError(
                "Several replicas need an encoder that adds no losses of its outputs. "
                f"Received: an encoder whose layers {names} do. Train on one replica, "
                "take kernel_regularizer, or add the loss in a subclass's "
                "compute_losses."
            )
        losses = [loss for layer in layers for loss in layer._get_own_losses()]
        return [at_least_float32(ops.sum(loss)) for loss in losses]

    def _regularization(self):
        """What the regularizers of the student's weights give."""
        weights = self.student.trainable_weights
        return [
            at_least_float32(v.regularizer(v))
            for v in weights
            if v.regularizer is not None
        ]

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
        batch = as_batch(data, self.encoder.input_shape)
        with tf.name_scope("teacher_update"):
            rate = teacher_update_rate(
                self.step, self.total_steps, self.teacher_momentum
            )
            update_teacher(self.teacher.parameters(), self.student.parameters(), rate)
        if self.accumulate_steps > 1:
            found = accumulate(self._gradients, batch, self.accumulate_steps)
        else:
            found = self._gradients(batch)
        gradients, batch_center, diagnostics = found
        good = self._judge(diagnostics, gradients) if self.skip_nonfinite else None
        if replicas.num_replicas() > 1 and hasattr(self.optimizer, "dynamic_scale"):
            gradients = _agree_on_overflow(gradients)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        with tf.name_scope("center_update"):
            batch_center = replicas.mean_over_replicas(batch_center)
            old = self.center_momentum
            center = self.center * old + batch_center * (1.0 - old)
            if good is not None:
                center = ops.where(good > 0, center, self.center)
            self.center.assign(center)
            self.step.assign(self.step + 1)
        with tf.name_scope("health"):
            return self._track(diagnostics, good)

    def _gradients(self, batch):
        """Gradients of a batch, its center, and its diagnostics."""
        with tf.GradientTape() as tape:
            loss, batch_center, diagnostics = self.compute_losses(batch)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        if not variables:
            raise ValueError(
                "Something must learn. Received: a model whose student and predictor "
                "are frozen as a whole. Set trainable=True on one of their layers."
            )
        return tape.gradient(scaled, variables), batch_center, scalars_of(diagnostics)

    def _judge(self, diagnostics, gradients):
        """1 if losses and gradients are finite on all replicas, else 0, and counts.

        The optimizer's gate takes the verdict.
        """
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not hasattr(optimizer, "gate"):
            raise ValueError(
                "skip_nonfinite needs an optimizer that can skip a step: "
                f"slotcon_tf.LARS or slotcon_tf.SGD. Received: {optimizer.name}."
            )
        judged = {name: diagnostics[name] for name in NONFINITE[:2]}
        if optimizer is self.optimizer:
            judged["gradients"] = tf.add_n([tf.nn.l2_loss(g) for g in gradients])
        else:
            # Scaled ones may overflow: the loss scale deals with those.
            judged["gradients"] = ops.zeros(())
        bad = [ops.cast(~ops.isfinite(judged[n]), "float32") for n in NONFINITE[:-1]]
        bad = ops.cast(replicas.sum_over_replicas(ops.stack(bad)) > 0, "int64")  # (3,)
        skipped = ops.max(bad, keepdims=True)
        self.nonfinite.assign(self.nonfinite + ops.concatenate([bad, skipped]))
        good = ops.cast(skipped[0] == 0, "float32")
        optimizer.gated = True
        optimizer.gate.assign(good)
        return good

    def test_step(self, data):
        """Both losses with moving statistics; nothing is updated."""
        batch = as_batch(data, self.encoder.input_shape)
        _, _, diagnostics = self.compute_losses(batch, training=False)
        return self._track(scalars_of(diagnostics))

    def _track(self, diagnostics, good=None):
        """Adds a step's metrics to the epoch's means, unless the step was skipped."""
        untracked = {}
        for name, value in global_metrics(diagnostics).items():
            if name not in self.trackers:
                untracked[name] = value
                continue
            if good is not None:
                value = ops.where(good > 0, value, ops.zeros_like(value))
            self.trackers[name].update_state(value, sample_weight=good)
        logs = {name: tracker.result() for name, tracker in self.trackers.items()}
        logs |= untracked
        if good is not None:
            logs["skipped_steps"] = self.nonfinite[-1]
        return logs


def _agree_on_overflow(gradients):
    """Makes all gradients NaN where those of any replica are not finite.

    Keras's LossScaleOptimizer takes one replica's word for all of them, and sums the
    gradients after it.
    """
    total = tf.add_n([tf.nn.l2_loss(ops.cast(g, "float32")) for g in gradients])
    bad = ops.cast(~ops.isfinite(total), "float32")
    bad = replicas.sum_over_replicas(bad) > 0
    return [ops.where(bad, ops.full_like(g, float("nan")), g) for g in gradients]
