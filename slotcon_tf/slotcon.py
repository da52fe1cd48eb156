"""SlotCon: the Keras model with its student, teacher and center."""

import operator
import warnings

import keras

from slotcon_tf.encoders import (
    as_encoder,
    check_policy,
    in_policy,
    is_regularized,
    loading,
)
from slotcon_tf.heads import MLPHead
from slotcon_tf.health import METRICS
from slotcon_tf.network import GroupingNetwork
from slotcon_tf.slots import read_slots
from slotcon_tf.statistics import chosen_statistics
from slotcon_tf.training import NONFINITE, TrainingStep
from slotcon_tf.twins import copy_trainable, freeze_layers, frozen_layers, twin


@keras.saving.register_keras_serializable(package="slotcon_tf")
class SlotCon(TrainingStep):
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
            kept in the same way (`slotcon_tf.data.pixels`).
        dtype: Policy of student, teacher and heads; float32, float64 or a mixed one.

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
        accumulate_steps=1,
        skip_nonfinite=False,
        remat=False,
        mean=None,
        std=None,
        pixel_range=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_policy(self.dtype_policy)
        # Not by a configuration, which always has a policy, as a dict.
        self.policy_asked = not isinstance(kwargs.get("dtype"), dict | None)
        encoder = in_policy(as_encoder(encoder), self.dtype_policy, self.policy_asked)
        _check_settings(
            whole={
                "num_prototypes": num_prototypes,
                "hidden_dim": hidden_dim,
                "projection_dim": projection_dim,
                "accumulate_steps": accumulate_steps,
            },
            positive={
                "total_steps": total_steps,
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
        self.accumulate_steps = accumulate_steps
        self.skip_nonfinite = skip_nonfinite
        self.remat = remat
        self.statistics = chosen_statistics(
            encoder, mean=mean, std=std, pixel_range=pixel_range
        )

        sizes = {
            "num_prototypes": num_prototypes,
            "hidden_dim": hidden_dim,
            "projection_dim": projection_dim,
            "dtype": self.dtype_policy,
        }
        self.student = GroupingNetwork(encoder, remat=remat, name="student", **sizes)
        self.teacher = GroupingNetwork(twin(encoder), name="teacher", **sizes)
        self.teacher.set_weights(self.student.get_weights())
        for network in (self.student, self.teacher):
            network.encoder.statistics = self.statistics
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
        if skip_nonfinite:
            self.nonfinite = self.add_weight(
                name="nonfinite",
                shape=(len(NONFINITE),),
                initializer="zeros",
                dtype="int64",
                trainable=False,
            )
        names = METRICS + (("added_loss",) if is_regularized(encoder) else ())
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self._freeze_teacher()
        self.built = True

    @property
    def encoder(self):
        """The student's encoder: the model that was passed in.

        In a file of its own only a `slotcon_tf.ResNet` keeps `statistics`.
        """
        return self.student.encoder

    @property
    def mean(self):
        return self.statistics.mean

    @property
    def std(self):
        return self.statistics.std

    @property
    def pixel_range(self):
        return self.statistics.pixel_range

    @property
    def metrics(self):
        return list(self.trackers.values())

    def _freeze_teacher(self):
        """Freezes the layers that are frozen in the student, and flags all variables.

        Not all layers: one with `trainable=False` normalises with moving statistics,
        and the teacher must use those of its batch where the student does.
        """
        copy_trainable(self.student, self.teacher)
        for variable in self.teacher.variables:
            variable.trainable = False

    def _freezable(self):
        """The parts whose frozen layers a saved model remembers, by name."""
        student = self.student
        return {
            "encoder": student.encoder,
            "projector": student.projector,
            "grouping": student.grouping,
            "predictor": self.predictor,
        }

    def call(self, inputs, training=False):
        if isinstance(inputs, dict):
            raise ValueError(
                "The model is called on normalised images (B, height, width, 3). "
                f"Received: a dict of {', '.join(inputs)}. Give one of its views, or "
                "take fit or evaluate, which read pairs of views."
            )
        if keras.backend.is_int_dtype(keras.backend.standardize_dtype(inputs.dtype)):
            raise ValueError(
                "The model is called on normalised images (B, height, width, 3). "
                f"Received: {keras.backend.standardize_dtype(inputs.dtype)}. Take "
                "model.slots(images), or (grey level / 255 - mean) / std."
            )
        return self.teacher(inputs, training=training)

    def slots(self, images, batch_size=32):
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
            ```python
            found = model.slots(images)
            vectors = found["slots"][0][found["active"][0]]  # of the first image
            ```
        """
        return read_slots(self.teacher, images, self.teacher_temperature, batch_size)

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
            Keras model of the encoder's class, images to a map (B, H, W, C). It warns
            of `statistics` that are not ImageNet's where only a `slotcon_tf.ResNet`
            would keep them in its file.
        """
        source = self.network(which).encoder
        copy = twin(source)
        copy.set_weights(source.get_weights())
        for layer in copy._flatten_layers():
            layer.trainable = True  # set on the model alone, it may reach none of them
        copy.statistics = self.statistics
        kept, own = copy.get_config(), self.statistics.config()
        if any(kept.get(name) != value for name, value in own.items()):
            given = ", ".join(f"{name}={tuple(own[name])}" for name in own)
            warnings.warn(
                f"The encoder's images are normalised with {given}, which a file of "
                f"{type(copy).__name__} does not keep. Save the whole model, or set "
                "encoder.statistics = slotcon_tf.statistics.ImageStatistics("
                f"{given}) after loading.",
                stacklevel=2,
            )
        return copy

    def get_config(self):
        parts = {name: frozen_layers(p) for name, p in self._freezable().items()}
        frozen = {name: places for name, places in parts.items() if places}
        return {
            **super().get_config(),
            **({"frozen_layers": frozen} if frozen else {}),
            **({"policy_asked": True} if self.policy_asked else {}),
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
            "accumulate_steps": self.accumulate_steps,
            "skip_nonfinite": self.skip_nonfinite,
            "remat": self.remat,
            **self.statistics.config(),
        }

    @classmethod
    def from_preset(cls, source, **settings):
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
        # Here, since interop builds models, and so imports this file.
        from slotcon_tf.interop.pretrained import from_preset

        return from_preset(source, **settings)

    def save_to_preset(self, directory):
        """Writes a directory for `from_preset`; returns the path of its model."""
        from slotcon_tf.interop.pretrained import save_to_preset

        return save_to_preset(self, directory)

    @classmethod
    def from_config(cls, config):
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


def _check_settings(whole, positive, share):
    for name, value in whole.items():
        if not _is(operator.index, value):
            raise ValueError(
                f"{name} must be a whole number. Received: {name}={value!r}."
            )
    for name, value in {**positive, **share}.items():
        if isinstance(value, str) or not _is(float, value):
            raise ValueError(f"{name} must be a number. Received: {name}={value!r}.")
    for name, value in {**whole, **positive}.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive. Received: {name}={value}.")
    for name, value in share.items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"{name} must lie between 0 and 1. Received: {name}={value}."
            )


def _is(kind, value):
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True
