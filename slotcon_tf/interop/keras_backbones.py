"""Encoders as backbones of the detectors and segmenters of keras-cv and keras-hub.

Neither package is imported here: both ask a backbone for no more than a functional
graph whose pyramid has names.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.images.statistics import IMAGENET, ImageStatistics, statistics_of


@keras.saving.register_keras_serializable(package="slotcon_tf")
class ImageNetNormalization(keras.layers.Layer):
    """Grey levels to mean 0 and standard deviation 1, as a layer.

    Args:
        mean, std: Three shares of 255 each; ImageNet's by default.

    Call arguments:
        inputs: RGB images (B, H, W, 3) in grey levels 0 .. 255.

    Returns:
        float32 (B, H, W, 3), in any precision: bfloat16 has no room for 255 levels.

    Example:
        >>> white = ops.full((1, 2, 2, 3), 255)
        >>> ImageNetNormalization()(white)[0, 0, 0].numpy().round(2)
        array([2.25, 2.43, 2.64], dtype=float32)
    """

    def __init__(
        self,
        *,
        mean: tuple[float, ...] = IMAGENET.mean,
        std: tuple[float, ...] = IMAGENET.std,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.statistics = ImageStatistics(mean, std)

    def call(self, inputs: Any) -> Any:
        return self.statistics.normalize(ops.cast(inputs, "float32"))

    def get_config(self) -> dict[str, Any]:
        own = {"mean": self.statistics.mean, "std": self.statistics.std}
        return {**super().get_config(), **{k: list(v) for k, v in own.items()}}

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="slotcon_tf")
class PyramidBackbone(keras.Model):
    """A functional model that knows which of its layers make which pyramid level.

    Its configuration is that of the whole graph, so it also keeps which layers are
    frozen.

    Args:
        inputs, outputs, name: As of a functional keras.Model.
        pyramid_level_inputs: Dict of level ("P2" ..) to the name of the layer that
            makes it, which keras-cv reads. Pn is 2^n times smaller than the images.
        **kwargs: Of keras.Model.

    Call arguments:
        inputs: RGB images (B, H, W, 3) in grey levels 0 .. 255.
        training: Whether batch normalisation uses batch statistics.

    Returns:
        The map of the coarsest level. `pyramid_outputs`, which keras-hub reads, is a
        dict of level to symbolic map.

    Example:
        >>> images = keras.Input((None, None, 3))
        >>> fine = keras.layers.Conv2D(4, 3, strides=4, name="fine")(images)
        >>> coarse = keras.layers.Conv2D(8, 3, strides=2, name="coarse")(fine)
        >>> levels = {"P2": "fine", "P3": "coarse"}
        >>> network = PyramidBackbone(images, coarse, pyramid_level_inputs=levels)
        >>> {level: x.shape[-1] for level, x in network.pyramid_outputs.items()}
        {'P2': 4, 'P3': 8}
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        name: str | None = None,
        *,
        pyramid_level_inputs: dict[str, str],
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.pyramid_level_inputs = dict(pyramid_level_inputs)

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """Dict of level to symbolic map (B, H / 2^n, W / 2^n, C)."""
        levels = self.pyramid_level_inputs.items()
        return {level: self.get_layer(name).output for level, name in levels}

    def get_config(self) -> dict[str, Any]:
        levels = dict(self.pyramid_level_inputs)
        return {**super().get_config(), "pyramid_level_inputs": levels}


def keras_cv_backbone(
    encoder: ResNet,
    *,
    image_shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> PyramidBackbone:
    """An encoder as `backbone` of keras-cv's DeepLabV3Plus and RetinaNet.

    The backbone is a copy: training it leaves the encoder as it is, and the reverse.
    It normalises images itself; its maps are those of `encoder(normalize(images))`.

    Args:
        encoder: `slotcon_tf.ResNet` of output stride 32, such as
            `slotcon_model.feature_extractor()`.
        image_shape: (height, width, 3); None for free sizes, multiples of 32.

    Returns:
        A `PyramidBackbone` of levels P2 .. P5: RGB images in grey levels 0 .. 255 to a
        map (B, height / 32, width / 32, C).

    Raises:
        ValueError: If it is no `slotcon_tf.ResNet`, above all a
            `keras_cv.models.ResNetBackbone`, or its output stride is not 32.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> sorted(keras_cv_backbone(encoder).pyramid_level_inputs)
        ['P2', 'P3', 'P4', 'P5']
    """
    encoder = as_resnet(encoder)
    if encoder.output_stride != 32:
        raise ValueError(
            "The models of keras-cv need levels P3, P4 and P5 at strides 8, 16 and 32. "
            f"Received: {encoder.name!r} with output_stride={encoder.output_stride}. "
            "Pretrain with output_stride=32, or take keras_hub_backbone and "
            "keras_hub.models.DeepLabV3Backbone."
        )
    return _normalizing_copy(encoder, image_shape)


def keras_hub_backbone(
    encoder: ResNet,
    *,
    image_shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> PyramidBackbone:
    """An encoder as `image_encoder` of keras-hub's DeepLabV3 and RetinaNet backbones.

    A copy that normalises, as `keras_cv_backbone`; their `preprocessor` must not scale.
    Levels go by stride: those of an encoder of output stride 16 end at P4, which
    `DeepLabV3Backbone` takes (`spatial_pyramid_pooling_key="P4", upsampling_size=4`)
    and `RetinaNetBackbone` with `max_level=4`.

    Args:
        encoder: `slotcon_tf.ResNet`, such as `slotcon_model.feature_extractor()`.
        image_shape: (height, width, 3); None for free sizes, multiples of 32.

    Returns:
        A `PyramidBackbone` of levels P2 .. P5 (P4, P3 at output stride 16, 8): RGB
        images in grey levels 0 .. 255 to the map of the coarsest level.

    Raises:
        ValueError: If it is no `slotcon_tf.ResNet`, above all a
            `keras_cv.models.ResNetBackbone`.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8, output_stride=16)
        >>> sorted(keras_hub_backbone(encoder).pyramid_outputs)
        ['P2', 'P3', 'P4']
    """
    return _normalizing_copy(as_resnet(encoder), image_shape)


def as_resnet(model: keras.Model) -> ResNet:
    """Checks that a model is the network that the weights were trained in.

    keras-cv's own ResNet has layers of the same shapes, so that the weights would load
    and give other features: it pads strided convolutions on the right and bottom only,
    and strides in the first 1x1 of a bottleneck (v1.0) where this one strides in the
    3x3 (v1.5).

    Args:
        model: What should be a `slotcon_tf.ResNet`.

    Returns:
        The model itself.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> from slotcon_tf import backbone
        >>> as_resnet(backbone("resnet10", width=8)).name
        'resnet10'
        >>> as_resnet(keras.Sequential())
        Traceback (most recent call last):
            ...
        ValueError: The encoder must be a slotcon_tf.ResNet. Received: ...
    """
    if isinstance(model, ResNet):
        return model
    need = "The encoder must be a slotcon_tf.ResNet."
    remedy = (
        "Take keras_cv_backbone(slotcon_model.feature_extractor()), or "
        "keras_hub_backbone(..), of a SlotCon(slotcon_tf.backbone(..))."
    )
    if _is_keras_cv_v1(model):
        raise ValueError(
            f"{need} Received: {model.name!r}, a keras_cv.models.ResNetBackbone. That "
            "is ResNet v1.0: it strides in the first 1x1 of a block and pads on one "
            "side, a slotcon_tf.ResNet (v1.5) strides in the 3x3 and pads on both. "
            "Weights move between them without an error, and the features are wrong. "
            f"{remedy}"
        )
    raise ValueError(f"{need} Received: {model!r}. {remedy}")


def _is_keras_cv_v1(model):
    return any(
        kind.__name__ == "ResNetBackbone" and kind.__module__.startswith("keras_cv.")
        for kind in type(model).__mro__
    )


def _normalizing_copy(encoder, image_shape):
    """A `PyramidBackbone` with the encoder's layers and weights, one copy of each."""
    images = keras.Input(image_shape, name="images", dtype="float32")
    own = statistics_of(encoder)
    own = {"mean": own.mean, "std": own.std}

    def call(layer, *args, **kwargs):
        # The graph must be flat: keras-cv finds a level by the name of its layer.
        if args[0] is images:
            args = (ImageNetNormalization(name="normalization", **own)(images),)
        return layer(*args, **kwargs)

    # Plain: Keras 3.10 calls a subclass's constructor with inputs and outputs.
    plain = keras.Model(encoder.input, encoder.output, name=encoder.name)
    graph = keras.models.clone_model(plain, input_tensors=images, call_function=call)
    for layer in encoder.layers:
        graph.get_layer(layer.name).set_weights(layer.get_weights())
    return PyramidBackbone(
        images,
        graph.output,
        name=encoder.name,
        pyramid_level_inputs=_levels_by_stride(encoder),
    )


def _levels_by_stride(encoder):
    """Dict of level to layer name, where Pn has stride 2^n.

    Of the stages that a dilated encoder leaves at one stride the last counts.
    """
    levels = {}
    for level, name in encoder.pyramid_level_inputs.items():
        stride = min(2 ** int(level[1]), encoder.output_stride)
        levels[f"P{stride.bit_length() - 1}"] = name
    return levels
