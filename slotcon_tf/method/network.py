"""What student and teacher both are: encoder, projector and prototypes."""

import keras

from slotcon_tf.method.grouping import SemanticGrouping
from slotcon_tf.method.heads import MLPHead
from slotcon_tf.method.twins import parameters_of
from slotcon_tf.method.twins import twin as twin  # it was here once
from slotcon_tf.training.remat import rematerialize, stage_models


@keras.saving.register_keras_serializable(package="slotcon_tf")
class GroupingNetwork(keras.layers.Layer):
    """Encoder, projector and prototypes: what student and teacher both are.

    Args:
        encoder: Keras model, images (B, height, width, 3) to a map (B, H, W, C).
        num_prototypes: K.
        hidden_dim: Width of the projector's hidden layers.
        projection_dim: D.
        remat: Whether the encoder's stages are computed again in the backward pass;
            see `slotcon_tf.training.remat`.

    Call arguments:
        inputs: Normalised images (B, height, width, 3).
        training: Whether batch normalisation uses batch statistics.

    Returns:
        Dict of `map` (B, H, W, C), `projected` (B, H, W, D) and `assignment_logits`
        (B, H, W, K).
    """

    def __init__(
        self,
        encoder,
        *,
        num_prototypes,
        hidden_dim,
        projection_dim,
        remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.num_prototypes = num_prototypes
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.remat = remat
        # In a function, so that Keras does not track the layers once more.
        stages = stage_models(encoder) if remat else None
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

    def build(self, input_shape):
        """Nothing is left to build; Keras notes the shape, which a summary shows."""
        self.built = True

    def call(self, inputs, training=None):
        if self.remat and training:
            features = rematerialize(self._stages(), inputs, training)  # (B, H, W, C)
        else:
            features = self.encoder(inputs, training=training)  # (B, H, W, C)
        projected = self.projector(features, training=training)  # (B, H, W, D)
        logits = self.grouping(projected)  # (B, H, W, K)
        return {"map": features, "projected": projected, "assignment_logits": logits}

    def parameters(self):
        """Variables that learn where nothing is frozen: no moving statistics."""
        pairs = zip(self.variables, self._learns, strict=True)
        return [variable for variable, learns in pairs if learns]

    def compute_output_shape(self, input_shape):
        features = tuple(self.encoder.compute_output_shape(input_shape))
        return {
            "map": features,
            "projected": (*features[:-1], self.projection_dim),
            "assignment_logits": (*features[:-1], self.num_prototypes),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_prototypes": self.num_prototypes,
            "hidden_dim": self.hidden_dim,
            "projection_dim": self.projection_dim,
            "remat": self.remat,
        }

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)
