"""Encoders as backbones: parity, independence, round trips, and steps of training.

The tests of keras-hub need it installed; requirements.txt does without.
"""

import re

import keras
import numpy as np
import pytest

from slotcon_tf import ResNet, SlotCon, backbone
from slotcon_tf.images import normalize
from slotcon_tf.interop.keras_backbones import (
    PyramidBackbone,
    as_resnet,
    keras_cv_backbone,
    keras_hub_backbone,
)

SIZE = 128  # pixels: the coarsest of RetinaNet's levels, P7, has one position
BOXES = np.float32([[[10, 10, 60, 60]], [[30, 40, 100, 120]]])  # xyxy, pixels


def images(size=SIZE):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, size, size, 3)).astype(np.float32)


def labels():
    return np.random.default_rng(1).integers(0, 3, (2, SIZE, SIZE, 1))


def pretrained(arch="resnet18", **options):
    """An encoder whose every weight counts: no gamma is 0, no moving mean 0."""
    model = backbone(arch, width=8, **options)
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            shape = layer.gamma.shape
            gamma, variance = rng.uniform(0.5, 1.5, (2, *shape))
            beta, mean = rng.normal(size=(2, *shape)) * 0.1
            layer.set_weights([gamma, beta, mean, variance])
    return model


def weights(model):
    return [np.array(v) for v in model.variables]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def pyramid(model, x, training=False):
    """The maps of all levels."""
    return keras.Model(model.input, model.pyramid_outputs)(x, training=training)


def assert_step_trains(model, encoder, x, y):
    """One step has a finite loss and changes the whole backbone, but no encoder."""
    trained = {v.path: np.array(v) for v in encoder.variables}
    before = {v.path: np.array(v) for v in encoder_of(model).variables}
    history = model.fit(x, y, batch_size=2, verbose=0).history
    assert all(np.isfinite(value).all() for value in history.values()), history
    same = [
        v.path for v in encoder_of(model).variables if np.array_equal(v, before[v.path])
    ]
    assert len(before) == 100 and not same
    assert_same(trained.values(), encoder.variables)


def encoder_of(model):
    return getattr(model.backbone, "image_encoder", model.backbone)


def assert_file_round_trip(model, path):
    """The file gives the same model, whose backbone still has its levels."""
    model.save(path)
    loaded = keras.models.load_model(path, compile=False)
    first, second = model(images()), loaded(images())
    assert_same(keras.tree.flatten(first), keras.tree.flatten(second))
    levels = encoder_of(model).pyramid_level_inputs
    assert encoder_of(loaded).pyramid_level_inputs == levels


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50_d"])
def test_maps_are_those_of_the_encoder_on_normalised_images(arch, dtype):
    encoder = pretrained(arch, dtype=dtype)
    model = keras_cv_backbone(encoder)
    expected = pyramid(encoder, normalize(images(64)))
    got = pyramid(model, images(64))
    assert list(got) == list(model.pyramid_level_inputs) == ["P2", "P3", "P4", "P5"]
    for level, maps in got.items():
        assert maps.shape[1] == 64 // 2 ** int(level[1])
        assert maps.dtype == expected[level].dtype
        np.testing.assert_array_equal(maps, expected[level])
    np.testing.assert_array_equal(model(images(64)), expected["P5"])
    bytes_in = images(64).astype(np.uint8)
    np.testing.assert_array_equal(model(bytes_in), encoder(normalize(bytes_in * 1.0)))


def test_batch_normalisation_is_the_encoders():
    """Batch statistics, and torch's way of recording them."""
    encoder = pretrained()
    model = keras_cv_backbone(encoder)
    expected = encoder(normalize(images()), training=True)
    np.testing.assert_array_equal(model(images(), training=True), expected)
    assert_same(weights(model), weights(encoder))


@pytest.mark.parametrize("make", [keras_cv_backbone, keras_hub_backbone])
def test_no_state_is_shared_with_slotcon(make):
    sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
    slotcon = SlotCon(pretrained(), total_steps=10, **sizes)
    teacher = slotcon.network("teacher").encoder  # frozen by its variables
    model = make(teacher)
    assert len(model.trainable_variables) == 60
    before = weights(slotcon)
    expected = np.array(model(images(64)))
    model.set_weights([w + 1 for w in model.get_weights()])
    assert_same(weights(slotcon), before)
    again = make(teacher)
    teacher.set_weights([w + 1 for w in teacher.get_weights()])
    np.testing.assert_array_equal(again(images(64)), expected)


def test_round_trips_keep_levels_weights_and_what_is_frozen(tmp_path):
    model = keras_hub_backbone(pretrained(), image_shape=(64, 64, 3))
    for layer in model.layers:
        layer.trainable = not layer.name.startswith(("conv1", "bn1", "layer1"))
    path = tmp_path / "backbone.keras"
    model.save(path)
    twin = PyramidBackbone.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    # Frozen layers normalise with their moving statistics in training, too.
    expected = pyramid(model, images(64), training=True)
    for copy in (keras.models.load_model(path), twin):
        assert type(copy) is PyramidBackbone
        assert copy.to_json() == model.to_json()
        assert len(copy.trainable_variables) == len(model.trainable_variables) == 45
        got = pyramid(copy, images(64), training=True)
        for level, maps in expected.items():
            np.testing.assert_array_equal(got[level], maps)


def test_dilated_encoders_go_by_their_strides():
    encoder = pretrained("resnet50_16s")
    model = keras_hub_backbone(encoder)
    got = pyramid(model, images(64))
    sizes = {level: maps.shape[1] for level, maps in got.items()}
    assert sizes == {"P2": 16, "P3": 8, "P4": 4}
    np.testing.assert_array_equal(got["P4"], encoder(normalize(images(64))))
    with pytest.raises(ValueError, match="output_stride=16.*keras_hub_backbone"):
        keras_cv_backbone(encoder)


@pytest.mark.parametrize("make", [keras_cv_backbone, keras_hub_backbone, as_resnet])
def test_other_models_are_refused(make):
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)])
    with pytest.raises(ValueError, match=r"<Sequential.*feature_extractor\(\)"):
        make(plain)
    with pytest.raises(ValueError, match="must be a slotcon_tf.ResNet. Received: 50"):
        make(50)


def test_keras_cv_v1_is_refused_since_its_features_would_be_wrong():
    """The weights fit without an error; the maps differ from the first level on."""
    v1 = pytest.importorskip("keras_cv").models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[1, 1, 1, 1],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
    )
    ours = ResNet(block="bottleneck", stage_depths=(1, 1, 1, 1))

    def our_name(name):
        match = re.match(r"v2_stack_(\d)_block1_(\d)_(\w+)", name)
        if not match:
            return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[name]
        stage, place, kind = match.groups()
        end = f"downsample_{kind}" if place == "0" else f"{kind}{place}"
        return f"layer{int(stage) + 1}_0_{end}"

    for layer in v1.layers:
        if layer.weights:
            layer.set_weights(ours.get_layer(our_name(layer.name)).get_weights())
    x = np.asarray(keras.ops.image.resize(images(8), (64, 64))) / 64 - 2
    assert np.abs(v1(x) - ours(x)).max() > 0.1 * np.abs(ours(x)).max()
    for make in (keras_cv_backbone, keras_hub_backbone, as_resnet):
        with pytest.raises(ValueError, match=r"keras_cv.models.ResNetBackbone.*v1\.0"):
            make(v1)


@pytest.mark.slow
def test_keras_cv_deeplab_trains(tmp_path):
    models = pytest.importorskip("keras_cv").models
    encoder = pretrained()
    model = models.DeepLabV3Plus(keras_cv_backbone(encoder), num_classes=3)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert_step_trains(model, encoder, images(), labels())
    assert_file_round_trip(model, tmp_path / "deeplab.keras")


@pytest.mark.slow
def test_keras_cv_retinanet_trains(tmp_path):
    models = pytest.importorskip("keras_cv").models
    encoder = pretrained()
    model = models.RetinaNet(
        keras_cv_backbone(encoder), num_classes=3, bounding_box_format="xyxy"
    )
    model.compile(box_loss="smoothl1", classification_loss="focal", optimizer="adam")
    y = {"boxes": BOXES, "classes": np.float32([[1], [2]])}
    assert_step_trains(model, encoder, images(), y)
    assert_file_round_trip(model, tmp_path / "retinanet.keras")


def hub_models():
    reason = "keras-hub is not in requirements.txt"
    return pytest.importorskip("keras_hub", reason=reason).models


@pytest.mark.parametrize("stride, level", [(32, "P5"), (16, "P4")])
@pytest.mark.slow
def test_keras_hub_deeplab_trains(stride, level, tmp_path):
    models = hub_models()
    encoder = pretrained(output_stride=stride)
    model = models.DeepLabV3ImageSegmenter(
        models.DeepLabV3Backbone(
            keras_hub_backbone(encoder),
            spatial_pyramid_pooling_key=level,
            upsampling_size=stride // 4,
            dilation_rates=[6, 12, 18],
            low_level_feature_key="P2",
            image_shape=(SIZE, SIZE, 3),
        ),
        num_classes=3,
        activation="softmax",
    )
    assert model.output_shape == (None, SIZE, SIZE, 3)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=None)
    assert_step_trains(model, encoder, images(), labels())
    assert_file_round_trip(model, tmp_path / "deeplab.keras")


@pytest.mark.slow
def test_keras_hub_retinanet_trains(tmp_path):
    models = hub_models()
    encoder = pretrained()
    model = models.RetinaNetObjectDetector(
        models.RetinaNetBackbone(
            keras_hub_backbone(encoder),
            min_level=3,
            max_level=7,
            use_p5=False,
            image_shape=(SIZE, SIZE, 3),
        ),
        num_classes=3,
        bounding_box_format="xyxy",
    )
    model.compile("adam")
    y = {"boxes": BOXES, "labels": np.int32([[1], [2]])}
    assert_step_trains(model, encoder, images(), y)
    assert_file_round_trip(model, tmp_path / "retinanet.keras")
