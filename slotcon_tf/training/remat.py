"""Rematerialisation: an encoder's stages computed again in the backward pass.

Between stages only their outputs are kept; what lies inside a stage is computed a
second time when its gradient is due. Memory for time, and the same numbers.
"""

import keras
import tensorflow as tf

from slotcon_tf.training.normalization import recording


def stage_models(encoder):
    """The stages of a `slotcon_tf.ResNet` as models that share its layers.

    Args:
        encoder: Has `pyramid_outputs`, symbolic maps; the last is its output.

    Returns:
        List of functional models; applied in turn they are the encoder.

    Raises:
        ValueError: If the encoder has none.
    """
    levels = getattr(encoder, "pyramid_outputs", None)
    if not levels:
        raise ValueError(
            "remat needs an encoder with pyramid_outputs, such as slotcon_tf.ResNet. "
            f"Received: {encoder.name!r}. Set remat=False, or accumulate_steps to save "
            "memory."
        )
    ends = list(levels.values())
    starts = [encoder.inputs[0], *ends[:-1]]
    return [keras.Model(a, b) for a, b in zip(starts, ends, strict=True)]


def rematerialize(stages, inputs, training):
    """Applies stages in turn, keeping for the gradient what goes between them only.

    Args:
        stages: Of `stage_models`.
        inputs: Images (B, height, width, 3).
        training: Passed on to the stages.

    Returns:
        The last stage's map.
    """
    x = inputs
    for stage in stages:
        x = _recomputed(stage, training)(x)
    return x


def _recomputed(stage, training):
    calls = []

    def forward(x):
        # The second call is the gradient's: statistics were recorded by the first.
        first = not calls
        calls.append(None)
        with recording(first):
            return stage(x, training=training)

    return tf.recompute_grad(forward)
