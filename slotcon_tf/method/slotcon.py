"""SlotCon: student, teacher and center, and one step of learning.

To be read beside the paper, from top to bottom: what the model holds, the two losses
(`compute_losses`), the step (`train_step`). The maths is in `objective.py`, the layers
in `networks.py`, the moving average in `teacher.py`, what a step reports in
`health.py`; what Keras asks around the step in `slotcon_tf.training.fitting`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf import presets
from slotcon_tf.devices import dynamic_shapes_pay
from slotcon_tf.encoders.added_losses import (
    is_regularized,
    losses_of_call,
    losses_of_weights,
)
from slotcon_tf.encoders.contract import as_encoder, check_policy, in_policy, loading
from slotcon_tf.encoders.copies import free_copy, twin
from slotcon_tf.encoders.freezing import (
    copy_trainable,
    freeze_layers,
    frozen_layers,
)
from slotcon_tf.images.statistics import ImageStatistics, chosen_statistics
from slotcon_tf.method import health, objective
from slotcon_tf.method.networks import GroupingNetwork, MLPHead
from slotcon_tf.method.settings import (
    Positive,
    Share,
    Whole,
    check_arguments,
    settings_of,
)
from slotcon_tf.method.slots import check_called_on, read_slots
from slotcon_tf.method.teacher import teacher_update_rate, update_teacher
from slotcon_tf.training import replicas
from slotcon_tf.training.batches import as_batch
from slotcon_tf.training.fitting import Fitting
from slotcon_tf.training.memory import accumulate
from slotcon_tf.training.nonfinite import NONFINITE, agree_on_overflow, judge
from slotcon_tf.types import Batch, Shape, Tensor

VIEWS = "ab"
DIRECTIONS = ("ab", "ba")  # the student's view, and the teacher's
STATISTICS = ("mean", "std", "pixel_range")  # arguments that `statistics` holds
TURNS = ("upended", "transposed")  # of each view, where they were turned at all
# Rows of the predictor, where their number may vary: every new number costs the CPU's
# kernels a set-up.
ROW_MULTIPLE = 64


@keras.saving.register_keras_serializable(package="slotcon_tf")
class SlotCon(Fitting):
    """Self-supervised learning of groups and features from unlabelled scenes.

    A student predicts, on the overlap of two views, the assignments of its
    moving-average teacher (`grouping_loss`), and recognises the teacher's slots of the
    other view among those of all images (`slot_contrastive_loss`);
    `loss = grouping_weight * grouping + (1 - grouping_weight) * contrastive`, both
    directions summed.

    Args:
        encoder: Keras model, images (B, height, width, 3) to a channels-last map
            (B, H, W, C): `slotcon_tf.backbone("resnet50")`, or one of
            keras.applications (`include_top=False`), keras-cv, keras-hub, without
            their scaling or augmentation of images. It becomes the student's encoder;
            the teacher gets a copy. Layers frozen in it, now or later, are frozen in
            both. What its layers add to the loss (`add_loss`, regularizers) counts,
            outputs' as the mean of both views, and is shown as `added_loss`.
        total_steps: Optimizer steps of the run; the teacher stands still at its end.
        num_prototypes: K, 256 for COCO and 2048 for ImageNet.
        hidden_dim: Width of the heads' hidden layers.
        projection_dim: D.
        teacher_momentum: At step 0; it rises to 1 along a cosine.
        center_momentum: Share of the old center kept per step.
        student_temperature, teacher_temperature, contrastive_temperature: Of the
            softmaxes. The pooling of slots uses the teacher's for both networks.
        grouping_weight: Share of the grouping loss.
        accumulate_steps: Parts that a replica's batch is cut into, to save memory.
            Batch statistics and the contrastive loss's negatives are those of a part.
        skip_nonfinite: Whether a step whose losses or gradients are not finite, on any
            replica, is skipped: no update, no change of the center. `nonfinite` counts
            them, by `NONFINITE`. Needs `slotcon_tf.LARS` or `SGD`.
        remat: Whether the student's stages are computed again in the backward pass,
            to save memory. Needs a `slotcon_tf.ResNet`.
        mean, std: What images are normalised with, three shares of 255 each; None for
            the encoder's own or ImageNet's. Kept with the model: export, evaluation
            and fine-tuning go by `statistics`. Give `crop_pair_dataset` the same.
        pixel_range: (low, high) that images of more than 8 bits were read in, or None;
            kept in the same way (`slotcon_tf.images.pixels`).
        serving_size: Edge in pixels that images are brought to when the model is
            served, and of its masks; kept in the same way. None: as the export says.
        dtype: Policy of student, teacher and heads; float32, float64 or a mixed one.

    Call arguments:
        inputs: Normalised images (B, height, width, 3).
        training: Whether batch normalisation uses batch statistics.

    Returns:
        The teacher's dict of `map`, `projected` and `assignment_logits`.
        `fit` takes batches as `slotcon_tf.data.crop_pair_dataset` makes them.

    Raises:
        ValueError: If the encoder is none, or a setting is out of range.

    Example:
        >>> from slotcon_tf import LARS, SlotCon, WarmupCosine, backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> sizes = {"num_prototypes": 8, "hidden_dim": 16, "projection_dim": 12}
        >>> model = SlotCon(encoder, total_steps=100, **sizes)
        >>> rate = WarmupCosine(peak=1.0, warmup_steps=5, total_steps=100)
        >>> model.compile(optimizer=LARS(rate))  # and model.fit(dataset)

    Reference: Wen et al. 2022, "Self-Supervised Visual Representation Learning with
    Semantic Grouping" (arXiv 2205.15288).
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        total_steps: Positive,
        num_prototypes: Whole = 256,
        hidden_dim: Whole = 4096,
        projection_dim: Whole = 256,
        teacher_momentum: Share = 0.99,
        center_momentum: Share = 0.9,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        contrastive_temperature: Positive = 0.2,
        grouping_weight: Share = 0.5,
        accumulate_steps: Whole = 1,
        skip_nonfinite: bool = False,
        remat: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pixel_range: Sequence[float] | None = None,
        serving_size: Whole | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_policy(self.dtype_policy)
        # Not by a configuration, which always has a policy, as a dict.
        self.policy_asked = not isinstance(kwargs.get("dtype"), dict | None)
        encoder = in_policy(as_encoder(encoder), self.dtype_policy, self.policy_asked)
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
        self.accumulate_steps = accumulate_steps
        self.skip_nonfinite = skip_nonfinite
        self.remat = remat
        self.serving_size = serving_size
        check_arguments(SlotCon.__init__, dict(vars(self)))
        self.statistics = chosen_statistics(
            encoder, mean=mean, std=std, pixel_range=pixel_range
        )

        heads = {"hidden_dim": hidden_dim, "dtype": self.dtype_policy}
        network = {
            "num_prototypes": num_prototypes,
            "projection_dim": projection_dim,
            **heads,
        }
        self.student = GroupingNetwork(encoder, remat=remat, name="student", **network)
        self.teacher = GroupingNetwork(twin(encoder), name="teacher", **network)
        self.teacher.set_weights(self.student.get_weights())
        for part in (self.student, self.teacher):
            part.encoder.statistics = self.statistics
        self.predictor = MLPHead(output_dim=projection_dim, name="predictor", **heads)
        self.predictor.build((None, projection_dim))
        self.center = self.add_weight(
            name="center",
            shape=(num_prototypes,),
            initializer="zeros",
            dtype=self.variable_dtype,
            trainable=False,
            autocast=False,
        )
        # Not the optimizer's counter: the teacher moves on every step, also on those
        # whose update a loss scale skips.
        self.step = self._counter("step", ())
        if skip_nonfinite:
            self.nonfinite = self._counter("nonfinite", (len(NONFINITE),))
        names = health.METRICS + (("added_loss",) if is_regularized(encoder) else ())
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self._freeze_teacher()
        self.built = True

    def _counter(self, name: str, shape: Shape) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, initializer="zeros", dtype="int64", trainable=False
        )

    def call(self, inputs: Tensor, training: bool = False) -> dict[str, Tensor]:
        check_called_on(inputs)
        return self.teacher(inputs, training=training)

    # The two losses.

    def compute_losses(
        self, batch: Batch, training: bool = True
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
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
        student, teacher, added = {}, {}, []
        # Every view by itself: batch statistics are those of one view.
        for v in VIEWS:
            student[v] = self.student(batch[f"view_{v}"], training=training)
            added += [loss / 2.0 for loss in losses_of_call(self.encoder, self.remat)]
        for v in VIEWS:
            found = self.teacher(batch[f"view_{v}"], training=training)
            teacher[v] = keras.tree.map_structure(ops.stop_gradient, found)

        grouping, agreement = self._grouping(student, teacher, batch)
        contrastive = 0.0
        for v, other in DIRECTIONS:
            with tf.name_scope("slot_contrastive_loss"):
                contrastive += self._contrastive(student[v], teacher[other], training)
        weight = self.grouping_weight
        loss = weight * grouping + (1.0 - weight) * contrastive
        own = {}
        added += losses_of_weights(self.student.trainable_weights)
        if added:
            own["added_loss"] = sum(added)
            loss += own["added_loss"] / replicas.num_replicas()

        logits = ops.stack([teacher[v]["assignment_logits"] for v in VIEWS])
        diagnostics = {
            **own,
            "loss": loss,
            "grouping_loss": grouping,
            "slot_contrastive_loss": contrastive,
            "agreement": agreement,
            **health.diagnose(student["a"]["map"], logits, self.teacher_temperature),
        }
        return loss, ops.mean(logits, axis=(0, 1, 2, 3)), diagnostics

    def _grouping(
        self,
        student: dict[str, dict[str, Tensor]],
        teacher: dict[str, dict[str, Tensor]],
        batch: Batch,
    ) -> tuple[Tensor, Tensor]:
        """Both directions: assignments on the overlap, by those of the other view.

        Returns:
            Tuple of the loss and the share of positions with the same winner.
        """
        logits, targets = {}, {}
        with tf.name_scope("alignment"):
            for v in VIEWS:
                where = [batch[f"overlap_{v}"], batch[f"flipped_{v}"]]
                where += [batch.get(f"{turn}_{v}") for turn in TURNS]
                logits[v] = objective.align(student[v]["assignment_logits"], *where)
                targets[v] = objective.align(teacher[v]["assignment_logits"], *where)
        total = agreement = 0.0
        for v, other in DIRECTIONS:
            with tf.name_scope("grouping_loss"):
                loss, found = objective.grouping_loss(
                    logits[v],
                    targets[other],
                    ops.convert_to_tensor(self.center),
                    student_temperature=self.student_temperature,
                    teacher_temperature=self.teacher_temperature,
                    num_replicas=replicas.num_replicas(),
                )
            total += loss
            agreement += found["agreement"] / 2.0
        return total, agreement

    def _contrastive(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], training: bool
    ) -> Tensor:
        """One direction: queries of one view, keys of the teacher's other view."""
        queries, query_valid, keys, key_valid = objective.pack_pairs(
            student, teacher, self.teacher_temperature
        )  # (S, D), (S,), (S, D), (S,)
        num_rows = ops.shape(queries)[0]
        num_queries = ops.sum(ops.cast(query_valid, keys.dtype))
        # One collective for both: the mask travels as one more column.
        key_valid = ops.cast(key_valid[:, None], keys.dtype)
        gathered = replicas.gather(ops.concatenate([keys, key_valid], axis=1))
        keys, key_valid = gathered[:, :-1], gathered[:, -1] > 0.5  # (G, D), (G,)
        labels = ops.arange(num_rows, dtype="int32")  # (S,)
        labels += replicas.replica_index() * num_rows
        if dynamic_shapes_pay():
            kept = objective.pack_rows(query_valid, ROW_MULTIPLE)  # (P,), P <= S
            queries, labels = ops.take(queries, kept, axis=0), ops.take(labels, kept)
            query_valid = ops.take(query_valid, kept)
        # Batch statistics of the queries that count, on all replicas.
        queries = self.predictor(queries, training=training, mask=query_valid)
        return objective.slot_contrastive_loss(
            queries,
            query_valid,
            keys,
            key_valid,
            labels=labels,
            num_queries=replicas.sum_over_replicas(num_queries),
            temperature=self.contrastive_temperature,
        )

    # The step.

    def train_step(self, data: Any) -> dict[str, Tensor]:
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
        good = None
        if self.skip_nonfinite:
            good = judge(self.optimizer, diagnostics, gradients, self.nonfinite)
        gradients = agree_on_overflow(self.optimizer, gradients)
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
            logs = health.report(self.trackers, diagnostics, good)
            if good is not None:
                logs["skipped_steps"] = self.nonfinite[-1]
            return logs

    def _gradients(self, batch: Batch) -> tuple[list[Tensor], Tensor, dict[str, Any]]:
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
        gradients = tape.gradient(scaled, variables)
        return gradients, batch_center, health.scalars_of(diagnostics)

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Both losses with moving statistics; nothing is updated."""
        batch = as_batch(data, self.encoder.input_shape)
        _, _, diagnostics = self.compute_losses(batch, training=False)
        return health.report(self.trackers, health.scalars_of(diagnostics))

    def _freeze_teacher(self) -> None:
        """Freezes the layers that are frozen in the student, and flags all variables.

        Not all layers: one with `trainable=False` normalises with moving statistics,
        and the teacher must use those of its batch where the student does.
        """
        copy_trainable(self.student, self.teacher)
        for variable in self.teacher.variables:
            variable.trainable = False

    # What `Fitting` asks.

    def before_step(self) -> None:
        self._freeze_teacher()

    def progress(self) -> tuple[int, float]:
        return int(self.step.numpy()), self.total_steps

    def learning_parts(self) -> tuple[keras.Layer, ...]:
        return self.student, self.predictor

    def images_taken(self) -> tuple[Shape, ImageStatistics]:
        return self.encoder.input_shape, self.statistics

    # What users ask.

    @property
    def encoder(self) -> keras.Model:
        """The student's encoder: the model that was passed in.

        In a file of its own only a `slotcon_tf.ResNet` keeps `statistics`.
        """
        return self.student.encoder

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the images, per channel, as shares of 255."""
        return self.statistics.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of the images, per channel, as shares of 255."""
        return self.statistics.std

    @property
    def pixel_range(self) -> tuple[float, ...] | None:
        """(low, high) that images of more than 8 bits were read in."""
        return self.statistics.pixel_range

    @property
    def metrics(self) -> list[keras.Metric]:
        """The epoch's means."""
        return list(self.trackers.values())

    def slots(self, images: Tensor, batch_size: int = 32) -> dict[str, Any]:
        """What the teacher sees in images.

        Args:
            images: uint8 (B, height, width, 3), RGB of any size, or normalised floats.
            batch_size: Images at once.

        Returns:
            Dict of arrays at the map's resolution: `slots` float32 (B, K, D) of length
            1, `assignments` int32 (B, H, W), the winning prototype of each position,
            `probabilities` float32 (B, H, W, K), the attention maps, and `active` bool
            (B, K), whether a prototype wins anywhere.

        Raises:
            ValueError: If the images have another shape or are not normalised.

        Example:
            >>> import numpy as np
            >>> from slotcon_tf import backbone
            >>> sizes = {"num_prototypes": 8, "hidden_dim": 16, "projection_dim": 12}
            >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
            >>> found = model.slots(np.zeros((2, 64, 64, 3), np.uint8))
            >>> found["slots"].shape, found["assignments"].shape
            ((2, 8, 12), (2, 2, 2))
            >>> vectors = found["slots"][0][found["active"][0]]  # of the first image
        """
        return read_slots(self.teacher, images, self.teacher_temperature, batch_size)

    def network(self, which: str = "teacher") -> GroupingNetwork:
        """The `GroupingNetwork` named "student" or "teacher"."""
        if which not in ("student", "teacher"):
            raise ValueError(
                "which must be 'student' or 'teacher'. "
                f"Received: which={which!r}. The teacher usually transfers as well."
            )
        return self.student if which == "student" else self.teacher

    def feature_extractor(self, which: str = "teacher") -> keras.Model:
        """A copy of the encoder, trainable, that goes its own way from here.

        Args:
            which: "teacher" or "student".

        Returns:
            Keras model of the encoder's class, images to a map (B, H, W, C). It warns
            of `statistics` that are not ImageNet's where only a `slotcon_tf.ResNet`
            would keep them in its file.
        """
        return free_copy(self.network(which).encoder, self.statistics)

    @classmethod
    def from_preset(cls, source: str | os.PathLike[str], **settings: Any) -> SlotCon:
        """A pretrained model.

        Args:
            source: Name of a published model (`slotcon_tf.presets.PUBLISHED`), whose
                file must be there already; a directory of `save_to_preset` or of a
                finished run; a .keras file; the original's full checkpoint.
            **settings: Constructor arguments that replace the model's. With
                `total_steps` a new schedule begins: `step` is 0.

        Returns:
            A `SlotCon`, not compiled.

        Raises:
            FileNotFoundError: If it is not there. Nothing is fetched.
            ValueError: If it is damaged, hostile, or an encoder alone.
        """
        return presets.store().from_preset(source, **settings)

    def save_to_preset(self, directory: str | os.PathLike[str]) -> pathlib.Path:
        """Writes a directory for `from_preset`; returns the path of its model."""
        return presets.store().save_to_preset(self, directory)

    # What a saved model remembers.

    def get_config(self) -> dict[str, Any]:
        parts = {name: frozen_layers(p) for name, p in self._freezable().items()}
        frozen = {name: places for name, places in parts.items() if places}
        names = [n for n in settings_of(SlotCon.__init__) if n not in STATISTICS]
        settings = {name: getattr(self, name) for name in names}
        return {
            **super().get_config(),
            **({"frozen_layers": frozen} if frozen else {}),
            **({"policy_asked": True} if self.policy_asked else {}),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            # Not what is None: versions before a setting was made read such models.
            **{name: value for name, value in settings.items() if value is not None},
            **self.statistics.config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        frozen = config.pop("frozen_layers", {})
        if config.pop("policy_asked", False):
            config["dtype"] = keras.dtype_policies.get(config["dtype"])
        with loading():
            model = cls(encoder, **config)
        for name, part in model._freezable().items():
            if name in frozen:
                freeze_layers(part, frozen[name])
        model._freeze_teacher()
        return model

    def _freezable(self) -> dict[str, keras.Layer]:
        """The parts whose frozen layers a saved model remembers, by name."""
        student = self.student
        return {
            "encoder": student.encoder,
            "projector": student.projector,
            "grouping": student.grouping,
            "predictor": self.predictor,
        }


def check_settings(**settings: Any) -> None:
    """Checks arguments of `SlotCon`, without the model; others are passed over.

    Raises:
        ValueError: If one of them is out of range; it names it.

    Example:
        >>> check_settings(num_prototypes=256, teacher_momentum=0.99)
    """
    check_arguments(SlotCon.__init__, settings)
