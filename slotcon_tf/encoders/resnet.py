"""The ResNet family of the method."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import layers

from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.training.normalization import BatchNormalization
from slotcon_tf.types import Tensor

_DEPTHS = {
    "10": ("basic", (1, 1, 1, 1)),
    "18": ("basic", (2, 2, 2, 2)),
    "34": ("basic", (3, 4, 6, 3)),
    "50": ("bottleneck", (3, 4, 6, 3)),
    "101": ("bottleneck", (3, 4, 23, 3)),
    "152": ("bottleneck", (3, 8, 36, 3)),
}


def _plain(depth: str, **extra: Any) -> dict[str, Any]:
    block, stage_depths = _DEPTHS[depth]
    return {"block": block, "stage_depths": stage_depths, **extra}


_D_FORM = {"deep_stem": True, "avg_pool_shortcut": True}
BACKBONES: dict[str, dict[str, Any]] = {
    **{f"resnet{depth}": _plain(depth) for depth in _DEPTHS},
    **{f"resnet{depth}_d": _plain(depth, **_D_FORM) for depth in _DEPTHS},
    "resnet50_16s": _plain("50", output_stride=16),
    "resnet50_w2x": _plain("50", width=128),
    "resnext101_32x8d": _plain("101", groups=32, width_per_group=8),
    "resnext152_32x8d": _plain("152", groups=32, width_per_group=8),
}


def backbone(arch: str, **overrides: Any) -> ResNet:
    """A ResNet of the family by name, with random weights.

    Args:
        arch: A key of `BACKBONES`: resnet10, 18, 34, 50, 101, 152, their `_d` forms,
            resnet50_16s, resnet50_w2x, resnext101_32x8d, resnext152_32x8d.
        **overrides: Arguments of `ResNet` that replace those of the name.

    Returns:
        A `ResNet`.

    Raises:
        ValueError: If no such name exists; it names the nearest.

    Example:
        >>> backbone("resnet10", width=8).output_shape
        (None, None, None, 64)
    """
    if arch not in BACKBONES:
        near = difflib.get_close_matches(arch, BACKBONES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"arch must be one of {', '.join(BACKBONES)}. Received: {arch!r}. {hint}"
            "Any other encoder goes to SlotCon(encoder=...) as a Keras model."
        )
    return ResNet(**{"name": arch, **BACKBONES[arch], **overrides})


@keras.saving.register_keras_serializable(package="slotcon_tf")
class ResNet(keras.Model):
    """ResNet v1.5 (stride on the 3x3) with torch's paddings and initial weights.

    Layers are named after torchvision's: `layer1_0_conv1` is `layer1.0.conv1`,
    `layer1_0_downsample_conv` is `layer1.0.downsample.0`.

    Args:
        block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1, expansion 4).
        stage_depths: Blocks of each of the four stages.
        width: Channels of the stem and, times 1, 2, 4, 8, of the stages.
        groups: Groups of the bottleneck's 3x3 (32 in ResNeXt).
        width_per_group: The bottleneck's inner width is
            `planes * width_per_group / 64 * groups`.
        deep_stem: Three 3x3 convolutions in place of the 7x7 (the _d forms).
        avg_pool_shortcut: Average-pool before the shortcut's 1x1 (the _d forms).
        output_stride: 32, or 16 or 8: the last stages dilated in place of strided.
        contract_dilation: Whether the convolution that would have strided, in the
            first block of a dilated stage, has half the stage's dilation, as
            torchvision and mmsegmentation have it. The map, taken at every second
            (fourth) position, is then that of the strided network.
        input_shape: (height, width, 3); None for free sizes.
        mean, std, pixel_range: Of its images, see `SlotCon`.

    Call arguments:
        inputs: Normalised images (B, height, width, 3).

    Returns:
        Final map (B, height / output_stride, width / output_stride, C), rounded up.
        `pyramid_outputs` holds the symbolic maps P2 .. P5, `pyramid_level_inputs` the
        names of the layers that make them (keras-cv's contract).

    Reference: He et al. 2016 (arXiv 1512.03385); Xie et al. 2017 (arXiv 1611.05431);
    He et al. 2019 (arXiv 1812.01187) for the _d forms.

    Example:
        >>> encoder = ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=8)
        >>> encoder(keras.ops.ones((1, 64, 64, 3))).shape
        TensorShape([1, 2, 2, 64])
    """

    def __init__(
        self,
        *,
        block: str,
        stage_depths: Sequence[int],
        width: int = 64,
        groups: int = 1,
        width_per_group: int = 64,
        deep_stem: bool = False,
        avg_pool_shortcut: bool = False,
        output_stride: int = 32,
        contract_dilation: bool = False,
        input_shape: tuple[int | None, int | None, int] = (None, None, 3),
        mean: Sequence[float] = IMAGENET.mean,
        std: Sequence[float] = IMAGENET.std,
        pixel_range: Sequence[float] | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if block not in ("basic", "bottleneck"):
            raise ValueError(
                f"block must be 'basic' or 'bottleneck'. Received: block={block!r}."
            )
        if output_stride not in (8, 16, 32):
            raise ValueError(
                "output_stride must be 8, 16 or 32. "
                f"Received: output_stride={output_stride}."
            )
        config: dict[str, Any] = {
            "block": block,
            "stage_depths": tuple(stage_depths),
            "width": width,
            "groups": groups,
            "width_per_group": width_per_group,
            "deep_stem": deep_stem,
            "avg_pool_shortcut": avg_pool_shortcut,
            "output_stride": output_stride,
            "contract_dilation": contract_dilation,
        }
        build = _Builder(dtype=dtype, **config)
        inputs = keras.Input(input_shape, name="images", dtype=dtype and "float32")
        x = build.stem(inputs)
        pyramid = {}
        dilation, stride_left = 1, output_stride // 4
        for stage, depth in enumerate(stage_depths, start=1):
            stride = 1 if stage == 1 else 2
            if stride == 2:
                if stride_left > 1:
                    stride_left //= 2
                else:
                    # Reference: the original dilates the first block as well, where
                    # torchvision leaves it as the stage before (contract_dilation).
                    stride, dilation = 1, dilation * 2
            x = build.stage(x, stage, depth, stride, dilation)
            pyramid[f"P{stage + 1}"] = x
        super().__init__(inputs=inputs, outputs=x, name=name, **kwargs)
        if dtype is not None:
            self.dtype_policy = dtype  # a functional model takes Keras's otherwise
        for key, value in config.items():
            setattr(self, key, value)
        self.image_shape = tuple(input_shape)
        images: Any = (mean, std, pixel_range)
        self.statistics = ImageStatistics(*images)
        self.pyramid_outputs = pyramid
        self.pyramid_level_inputs = {
            level: f"layer{int(level[1]) - 1}_{stage_depths[int(level[1]) - 2] - 1}_out"
            for level in pyramid
        }

    @property
    def num_channels(self) -> int:
        """C of the final map."""
        return self.output_shape[-1]

    @property
    def depth(self) -> int:
        """Convolutions on the way, with the classifier: 10 to 152 in the family."""
        return 2 + (3 if self.block == "bottleneck" else 2) * sum(self.stage_depths)

    def get_config(self) -> dict[str, Any]:
        return {
            "block": self.block,
            "stage_depths": list(self.stage_depths),
            "width": self.width,
            "groups": self.groups,
            "width_per_group": self.width_per_group,
            "deep_stem": self.deep_stem,
            "avg_pool_shortcut": self.avg_pool_shortcut,
            "output_stride": self.output_stride,
            "contract_dilation": self.contract_dilation,
            "input_shape": list(self.image_shape),
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "trainable": self.trainable,
            **self.statistics.config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        dtype = config.pop("dtype", None)
        if isinstance(dtype, dict):
            dtype = keras.saving.deserialize_keras_object(dtype)
        trainable = config.pop("trainable", True)
        model = cls(dtype=dtype, **config)
        if not trainable:
            model.trainable = False
        return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Builder:
    """Lays the layers of one ResNet; knows its settings, keeps no state."""

    dtype: Any
    block: str
    stage_depths: tuple[int, ...]
    width: int
    groups: int
    width_per_group: int
    deep_stem: bool
    avg_pool_shortcut: bool
    output_stride: int
    contract_dilation: bool

    @property
    def expansion(self) -> int:
        return 4 if self.block == "bottleneck" else 1

    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> Tensor:
        padding = dilation * (kernel - 1) // 2
        if stride > 1 and padding:
            # "same" would pad a strided convolution on the right and bottom only.
            x = layers.ZeroPadding2D(padding, name=f"{name}_pad", dtype=self.dtype)(x)
        return Conv2D(
            filters,
            kernel,
            strides=stride,
            dilation_rate=dilation,
            groups=groups,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=_conv_initializer(kernel, filters),
            name=name,
            dtype=self.dtype,
        )(x)

    def norm(self, x: Tensor, name: str, *, gamma: str = "ones") -> Tensor:
        return BatchNormalization(gamma_initializer=gamma, name=name, dtype=self.dtype)(
            x
        )

    def relu(self, x: Tensor, name: str) -> Tensor:
        return layers.ReLU(name=name, dtype=self.dtype)(x)

    def stem(self, x: Tensor) -> Tensor:
        if self.deep_stem:
            half = self.width // 2
            for index, stride in ((0, 2), (1, 1)):
                x = self.conv(x, half, 3, f"conv1_{index}_0", stride=stride)
                x = self.norm(x, f"conv1_{index}_1")
                x = self.relu(x, f"conv1_{index}_2")
            x = self.conv(x, self.width, 3, "conv1_2")
        else:
            x = self.conv(x, self.width, 7, "conv1", stride=2)
        x = self.relu(self.norm(x, "bn1"), "relu1")
        # After a ReLU, padding with zeros equals torch's padding with -inf.
        x = layers.ZeroPadding2D(1, name="maxpool_pad", dtype=self.dtype)(x)
        return layers.MaxPooling2D(3, 2, name="maxpool", dtype=self.dtype)(x)

    def stage(
        self, x: Tensor, stage: int, depth: int, stride: int, dilation: int
    ) -> Tensor:
        planes = self.width * 2 ** (stage - 1)
        for index in range(depth):
            contracted = self.contract_dilation and index == 0 and dilation > 1
            first_dilation = dilation // 2 if contracted else dilation
            x = self.residual(
                x,
                f"layer{stage}_{index}",
                planes,
                stride=stride if index == 0 else 1,
                first_dilation=first_dilation,
                dilation=dilation,
            )
        return x

    def residual(
        self,
        x: Tensor,
        name: str,
        planes: int,
        *,
        stride: int,
        first_dilation: int,
        dilation: int,
    ) -> Tensor:
        shortcut = x
        filters = planes * self.expansion
        if self.block == "bottleneck":
            inner = int(planes * self.width_per_group / 64) * self.groups
            y = self.conv(x, inner, 1, f"{name}_conv1")
            y = self.relu(self.norm(y, f"{name}_bn1"), f"{name}_relu1")
            y = self.conv(
                y,
                inner,
                3,
                f"{name}_conv2",
                stride=stride,
                dilation=first_dilation,
                groups=self.groups,
            )
            y = self.relu(self.norm(y, f"{name}_bn2"), f"{name}_relu2")
            y = self.conv(y, filters, 1, f"{name}_conv3")
            y = self.norm(y, f"{name}_bn3", gamma="zeros")
        else:
            y = self.conv(
                x, planes, 3, f"{name}_conv1", stride=stride, dilation=first_dilation
            )
            y = self.relu(self.norm(y, f"{name}_bn1"), f"{name}_relu1")
            y = self.conv(y, planes, 3, f"{name}_conv2", dilation=dilation)
            y = self.norm(y, f"{name}_bn2", gamma="zeros")
        if stride > 1 or x.shape[-1] != filters:
            shortcut = self.shortcut(x, name, filters, stride)
        y = layers.Add(name=f"{name}_add", dtype=self.dtype)([y, shortcut])
        return self.relu(y, f"{name}_out")

    def shortcut(self, x: Tensor, name: str, filters: int, stride: int) -> Tensor:
        name = f"{name}_downsample"
        if self.avg_pool_shortcut and stride > 1:
            # "same" ignores the padding in the mean, as count_include_pad=False does.
            x = layers.AveragePooling2D(
                2, stride, padding="same", name=f"{name}_pool", dtype=self.dtype
            )(x)
            stride = 1
        x = self.conv(x, filters, 1, f"{name}_conv", stride=stride)
        return self.norm(x, f"{name}_bn")


def _conv_initializer(kernel: int, filters: int) -> Any:
    return keras.initializers.RandomNormal(
        stddev=(2.0 / (kernel * kernel * filters)) ** 0.5
    )
