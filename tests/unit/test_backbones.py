"""The ResNet family: sizes, paddings, initial weights, pyramids, round trips."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.encoders.copies import strided
from slotcon_tf.encoders.resnet import BACKBONES, ResNet, backbone

# torchvision's counts without the classifier (2048 x 1000 + 1000, or 512 x ...).
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
    "resnext101_32x8d": 86_742_336,
    "resnet50_16s": 23_508_032,
}


def tiny(arch, **options):
    return backbone(arch, **{"width": 8, **options})


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def slow_if_deep(arch):
    """The hundreds of layers of some take seconds to make."""
    return slow(arch) if "101" in arch or "152" in arch else arch


@pytest.mark.parametrize("arch", map(slow_if_deep, PARAMETERS))
def test_parameter_counts(arch):
    model = backbone(arch)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == PARAMETERS[arch]


@pytest.mark.parametrize(
    "arch", [slow_if_deep(a) for a in BACKBONES if "next" not in a]
)
def test_every_backbone_maps_images(arch):
    model = tiny(arch)
    stride = 16 if arch == "resnet50_16s" else 32
    out = model(np.zeros((1, 64, 96, 3), np.float32))
    assert out.shape == (1, 64 // stride, 96 // stride, model.num_channels)
    sizes = [4, 8, 16, stride]
    for (level, maps), step in zip(model.pyramid_outputs.items(), sizes, strict=True):
        name = model.pyramid_level_inputs[level]
        assert model.get_layer(name).output is maps
        sub = keras.Model(model.input, maps)
        shape = sub(np.zeros((1, 64, 96, 3), np.float32)).shape
        assert shape[1:3] == (64 // step, 96 // step), level


@pytest.mark.slow
def test_widths_of_the_variants():
    assert backbone("resnet50_w2x").num_channels == 4096
    assert backbone("resnext152_32x8d").get_layer("layer1_0_conv2").groups == 32
    stem = [
        layer.name for layer in backbone("resnet18_d").layers if "conv1_" in layer.name
    ]
    assert "conv1_0_0" in stem and "conv1_2" in stem
    dilated = backbone("resnet50_16s").get_layer("layer4_0_conv2")
    assert dilated.dilation_rate == (2, 2) and dilated.strides == (1, 1)


def test_strided_convolution_pads_as_torch():
    """Against a direct sum over a symmetrically padded image."""
    model = tiny("resnet18")
    x = np.random.default_rng(0).normal(size=(1, 13, 11, 3)).astype(np.float32)
    got = keras.Model(model.input, model.get_layer("conv1").output)(x)
    kernel = model.get_layer("conv1").kernel.numpy()
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    assert got.shape[1:3] == (7, 6)
    for i, j in np.ndindex(7, 6):
        patch = padded[0, 2 * i : 2 * i + 7, 2 * j : 2 * j + 7]
        expected = np.einsum("hwc,hwco->o", patch, kernel)
        np.testing.assert_allclose(got[0, i, j], expected, rtol=1e-4, atol=1e-5)


def test_initial_weights():
    model = backbone("resnet50")
    kernel = model.get_layer("layer3_0_conv2").kernel.numpy()
    assert kernel.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    np.testing.assert_array_equal(model.get_layer("layer2_1_bn3").gamma.numpy(), 0)
    np.testing.assert_array_equal(model.get_layer("layer2_1_bn2").gamma.numpy(), 1)


def test_untrained_blocks_are_identities():
    """With zero gammas a stage without a shortcut convolution passes its input."""
    model = tiny("resnet18")
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    first = keras.Model(model.input, model.get_layer("layer3_0_out").output)(x)
    second = keras.Model(model.input, model.get_layer("layer3_1_out").output)(x)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("jit", [False, slow(True)])
def test_grouped_convolutions_train(jit):
    model = ResNet(
        block="bottleneck",
        stage_depths=(1, 1, 1, 1),
        width=8,
        groups=4,
        width_per_group=16,
    )
    x = tf.random.normal((2, 32, 32, 3))

    @tf.function(jit_compile=jit)
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    assert all(np.isfinite(g).all() for g in gradients())


@pytest.mark.parametrize("arch", ["resnet18", slow("resnet50_d"), slow("resnet50_16s")])
def test_round_trips(arch, tmp_path):
    model = tiny(arch, input_shape=(64, 64, 3))
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    model.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(model(x), loaded(x))
    twin = ResNet.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(x), twin(x))
    assert twin.get_config() == model.get_config()


@pytest.mark.parametrize("arch", ["resnet18", slow("resnet50")])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_contracted_dilation_keeps_the_strided_network(arch, output_stride, tmp_path):
    """The finer map holds the coarse one: where it strided, the same weights fit."""
    rng = np.random.default_rng(0)
    coarse = tiny(arch)
    # Blocks whose last gammas are 0 would show nothing.
    values = coarse.get_weights()
    coarse.set_weights(
        [rng.uniform(0.5, 1.0, w.shape) if w.ndim == 1 else w for w in values]
    )
    fine = tiny(arch, output_stride=output_stride, contract_dilation=True)
    other = tiny(arch, output_stride=output_stride)
    for model in (fine, other):
        model.set_weights(coarse.get_weights())
    x = rng.normal(size=(1, 96, 64, 3)).astype(np.float32)
    step = 32 // output_stride
    got, expected = fine(x).numpy(), coarse(x).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got[:, ::step, ::step], expected, atol=1e-5 * scale)
    assert np.abs(other(x)[:, ::step, ::step] - expected).max() > 1e-2 * scale
    np.testing.assert_array_equal(strided(fine)(x), expected)
    with pytest.raises(ValueError, match="exact twin of output stride 32"):
        strided(other)
    fine.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(x), got)
    assert loaded.contract_dilation


def test_a_pooled_shortcut_has_no_strided_twin():
    fine = tiny("resnet10_d", output_stride=16, contract_dilation=True)
    with pytest.raises(ValueError, match="exact twin of output stride 32"):
        strided(fine)
    assert strided(tiny("resnet10_d")).avg_pool_shortcut


def test_dilations_of_the_papers_segmenters():
    """mmsegmentation's strides and dilations, contract_dilation=True."""

    def convs(output_stride, stage):
        model = tiny("resnet50", output_stride=output_stride, contract_dilation=True)
        found = [model.get_layer(f"layer{stage}_{i}_conv2") for i in range(3)]
        return [(conv.strides[0], conv.dilation_rate[0]) for conv in found]

    assert convs(16, 3) == [(2, 1), (1, 1), (1, 1)]
    assert convs(16, 4) == [(1, 1), (1, 2), (1, 2)]
    assert convs(8, 2) == [(2, 1), (1, 1), (1, 1)]
    assert convs(8, 3) == [(1, 1), (1, 2), (1, 2)]
    assert convs(8, 4) == [(1, 2), (1, 4), (1, 4)]


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(ValueError, match="Did you mean resnet50_d"):
        backbone("resnet50d")
    with pytest.raises(ValueError, match="8, 16 or 32"):
        backbone("resnet18", output_stride=4)
