"""MLPHead: the projector on feature maps and the predictor on slots."""

import keras

from slotcon_tf.training.normalization import BatchNormalization

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
    """

    def __init__(self, *, hidden_dim, output_dim, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.output_dim = output_dim
        self.supports_masking = True

        def dense(units, name):
            return keras.layers.Dense(
                units,
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=INITIAL_STDDEV
                ),
                dtype=self.dtype_policy,
                name=name,
            )

        self.dense_0 = dense(hidden_dim, "dense_0")
        self.norm_0 = BatchNormalization(dtype=self.dtype_policy, name="norm_0")
        self.dense_1 = dense(hidden_dim, "dense_1")
        self.norm_1 = BatchNormalization(dtype=self.dtype_policy, name="norm_1")
        self.dense_2 = dense(output_dim, "dense_2")

    def build(self, input_shape):
        hidden_shape = (*input_shape[:-1], self.hidden_dim)
        self.dense_0.build(input_shape)
        self.norm_0.build(hidden_shape)
        self.dense_1.build(hidden_shape)
        self.norm_1.build(hidden_shape)
        self.dense_2.build(hidden_shape)
        self.built = True

    def call(self, inputs, training=None, mask=None):
        x = self.norm_0(self.dense_0(inputs), training=training, mask=mask)
        x = keras.activations.gelu(x, approximate=False)  # (..., hidden)
        x = self.norm_1(self.dense_1(x), training=training, mask=mask)
        x = keras.activations.gelu(x, approximate=False)  # (..., hidden)
        return self.dense_2(x)  # (..., D)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.output_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "output_dim": self.output_dim,
        }
