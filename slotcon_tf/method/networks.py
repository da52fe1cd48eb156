"""Student and teacher (encoder, projector, prototypes), and the student's predictor."""

from __future__ import annotations

from typing import Any, Self

import keras

from slotcon_tf.encoders.freezing import parameters_of
from slotcon_tf.method.objective import cosine
from slotcon_tf.training.memory import rematerialize, stage_models
from slotcon_tf.training.normalization import BatchNormalization
from slotcon_tf.types import Shape, Tensor, Variable

INITIAL_STDDEV = 0.02  # of every weight; the original's, truncation-free


@keras.saving.register_keras_serializable(package="slotcon_tf")
class MLPHead(keras.layers.Layer):
    """Three dense layers on the last axis, BN and exact GELU after the first two.

    Args:
        hidden_dim: Width of both hidden layers (4096 in the published recipes).
        output_dim: D, width of the output (256).

    Call arguments:
        inputs: (..., C): a map (B, H, W, C) or packed slots (S, C).
        training: Whether batch normalisation uses batch statistics.
        mask: bool (...) of the rows that count in batch statistics, or None.

    Returns:
        (..., output_dim).

    Reference: Wen et al. 2022 (arXiv 2205.15288), section 3.3.

    Example:
        >>> MLPHead(hidden_dim=16, output_dim=8)(keras.ops.ones((5, 4))).shape
        TensorShape([5, 8])
    """

    def __init__(self, *, hidden_dim: int, output_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.output_dim = output_dim
        self.supports_masking = True

        def dense(units: int, name: str) -> keras.layers.Dense:
            initial: Any = keras.initializers.RandomNormal(stddev=INITIAL_STDDEV)
            return keras.layers.Dense(
                units, kernel_initializer=initial, dtype=self.dtype_policy, name=name
            )

        self.dense_0 = dense(hidden_dim, "dense_0")
        self.norm_0 = BatchNormalization(dtype=self.dtype_policy, name="norm_0")
        self.dense_1 = dense(hidden_dim, "dense_1")
        self.norm_1 = BatchNormalization(dtype=self.dtype_policy, name="norm_1")
        self.dense_2 = dense(output_dim, "dense_2")

    def build(self, input_shape: Shape) -> None:
        hidden_shape = (*input_shape[:-1], self.hidden_dim)
        self.dense_0.build(input_shape)
        self.norm_0.build(hidden_shape)
        self.dense_1.build(hidden_shape)
        self.norm_1.build(hidden_shape)
        self.dense_2.build(hidden_shape)
        self.built = True

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        x = self.norm_0(self.dense_0(inputs), training=training, mask=mask)
        x = keras.activations.gelu(x, approximate=False)  # (..., hidden)
        x = self.norm_1(self.dense_1(x), training=training, mask=mask)
        x = keras.activations.gelu(x, approximate=False)  # (..., hidden)
        return self.dense_2(x)  # (..., D)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "output_dim": self.output_dim,
        }


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

    Example:
        >>> SemanticGrouping(num_prototypes=3)(keras.ops.ones((2, 7, 7, 4))).shape
        TensorShape([2, 7, 7, 3])
    """

    def __init__(self, *, num_prototypes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_prototypes = num_prototypes

    def build(self, input_shape: Shape) -> None:
        self.prototypes = self.add_weight(
            name="prototypes",
            shape=(self.num_prototypes, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            autocast=False,
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return cosine(inputs, self.prototypes)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.num_prototypes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_prototypes": self.num_prototypes}


@keras.saving.register_keras_serializable(package="slotcon_tf")
class GroupingNetwork(keras.layers.Layer):
    """Encoder, projector and prototypes: what student and teacher both are.

    Args:
        encoder: Keras model, images (B, height, width, 3) to a map (B, H, W, C).
        num_prototypes: K.
        hidden_dim: Width of the projector's hidden layers.
        projection_dim: D.
        remat: Whether the encoder's stages are computed again in the backward pass;
            see `slotcon_tf.training.memory`.

    Call arguments:
        inputs: Normalised images (B, height, width, 3).
        training: Whether batch normalisation uses batch statistics.

    Returns:
        Dict of `map` (B, H, W, C), `projected` (B, H, W, D) and `assignment_logits`
        (B, H, W, K).

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 16, "projection_dim": 4}
        >>> network = GroupingNetwork(backbone("resnet10", width=8), **sizes)
        >>> network(keras.ops.ones((1, 64, 64, 3)))["assignment_logits"].shape
        TensorShape([1, 2, 2, 3])
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        num_prototypes: int,
        hidden_dim: int,
        projection_dim: int,
        remat: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.num_prototypes = num_prototypes
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.remat = remat
        # In a function, so that Keras does not track the layers once more.
        stages = stage_models(encoder) if remat else []
        self._stages = lambda: stages
        self.projector = MLPHead(
            hidden_dim=hidden_dim,
            output_dim=projection_dim,
            dtype=self.dtype_policy,
            name="projector",
        )
        # The prototypes' cosine is as sensitive as a softmax: never below float32.
        self.grouping = SemanticGrouping(
            num_prototypes=num_prototypes, dtype=self.variable_dtype, name="grouping"
        )
        map_shape = encoder.output_shape
        self.projector.build(map_shape)
        self.grouping.build((*map_shape[:-1], projection_dim))
        learning = parameters_of(self)
        self._learns = tuple(id(v) in learning for v in self.variables)
        self.build(encoder.input_shape)

    def build(self, input_shape: Shape) -> None:
        """Nothing is left to build; Keras notes the shape, which a summary shows."""
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        if self.remat and training:
            features = rematerialize(self._stages(), inputs, training)  # (B, H, W, C)
        else:
            features = self.encoder(inputs, training=training)  # (B, H, W, C)
        projected = self.projector(features, training=training)  # (B, H, W, D)
        logits = self.grouping(projected)  # (B, H, W, K)
        return {"map": features, "projected": projected, "assignment_logits": logits}

    def parameters(self) -> list[Variable]:
        """Variables that learn where nothing is frozen: no moving statistics."""
        pairs = zip(self.variables, self._learns, strict=True)
        return [variable for variable, learns in pairs if learns]

    def compute_output_shape(self, input_shape: Shape) -> dict[str, Shape]:
        features = tuple(self.encoder.compute_output_shape(input_shape))
        return {
            "map": features,
            "projected": (*features[:-1], self.projection_dim),
            "assignment_logits": (*features[:-1], self.num_prototypes),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_prototypes": self.num_prototypes,
            "hidden_dim": self.hidden_dim,
            "projection_dim": self.projection_dim,
            "remat": self.remat,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)
