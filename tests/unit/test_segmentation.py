"""The segmenter's parts: schedules, resizing, loss, crops, inference, replicas."""

import colorsys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from slotcon_tf import SGD, backbone
from slotcon_tf.data.labelled import VOID
from slotcon_tf.images import normalize
from slotcon_tf.segmentation import (
    HEADS,
    OUTPUT_STRIDES,
    Augmentation,
    FCNHead,
    Predictor,
    Segmenter,
    crop_dataset,
    dilated,
    evaluate,
    save_masks,
)
from slotcon_tf.segmentation.augmentation import (
    change_saturation,
    distort_colors,
    fitted_size,
    turn_hue,
)
from slotcon_tf.segmentation.heads import ChannelDropout
from slotcon_tf.segmentation.losses import pixel_cross_entropy
from slotcon_tf.segmentation.resize import resize_bilinear
from slotcon_tf.training.schedules import Poly, Steps

GREYS = np.array([20, 90, 160, 230], np.uint8)  # of the four classes


class Regions:
    """Drawn images: blobs of four classes, each of its grey."""

    class_names = ("one", "two", "three", "four")
    num_classes = 4

    def __init__(self, count=5):
        self.num_images = count

    def load(self, index):
        rng = np.random.default_rng(index)
        height, width = rng.integers(40, 90, 2)
        noise = ndimage.gaussian_filter(rng.normal(size=(height, width)), 6)
        edges = np.quantile(noise, [0.25, 0.5, 0.75])
        labels = np.digitize(noise, edges).astype(np.uint8)
        return np.repeat(GREYS[labels][..., None], 3, axis=-1), labels


def tiny(head="d6", seed=0, **options):
    keras.utils.set_random_seed(seed)
    encoder = backbone("resnet18", width=8, stage_depths=(1, 1, 1, 1))
    settings = {**HEADS[head], "class_names": Regions.class_names, **options}
    settings["head"] = {**settings["head"], "channels": 12}
    return Segmenter(dilated(encoder, OUTPUT_STRIDES[head]), **settings)


def test_poly_schedule():
    schedule = Poly(peak=0.01, total_steps=80_000)
    # 0.5 ** 0.9 = 0.535887
    for step, rate in ((0, 0.01), (40_000, 0.00540528), (80_000, 1e-4), (90_000, 1e-4)):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
    assert float(Poly.from_config(schedule.get_config())(7)) == float(schedule(7))
    with pytest.raises(ValueError, match="must be positive"):
        Poly(peak=1.0, total_steps=0)


def test_steps_schedule():
    schedule = Steps(peak=0.003, total_steps=30_000)
    rates = {0: 3e-3, 20_999: 3e-3, 21_000: 3e-4, 26_999: 3e-4, 27_000: 3e-5}
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5), step
    twin = Steps.from_config(schedule.get_config())
    assert float(twin(21_000)) == float(schedule(21_000))


def test_resizing_is_torchs():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    for size in ((33, 49), (11, 4)):
        # TensorFlow's has torch's other convention.
        expected = tf.image.resize(maps, size)
        found = resize_bilinear(maps, size, align_corners=False)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    ramp = np.linspace(0, 1, 5, dtype=np.float32)[None, :, None, None]
    found = resize_bilinear(np.tile(ramp, (1, 1, 3, 1)), (33, 3), align_corners=True)
    np.testing.assert_allclose(found[0, :, 1, 0], np.linspace(0, 1, 33), atol=1e-6)
    np.testing.assert_allclose(
        resize_bilinear(maps, (1, 1), align_corners=True)[:, 0, 0], maps[:, 0, 0]
    )


def test_loss_by_hand():
    """Two valid pixels of four: the sum is over two, the divisor counts four."""
    logits = np.log([[[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]] * 2])  # (1, 2, 2, 3)
    labels = np.array([[[0, VOID], [VOID, 1]]], np.uint8)
    loss, found = pixel_cross_entropy(tf.constant(logits), labels)
    assert float(loss) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 4)
    assert (float(found["correct"]), float(found["valid"])) == (2, 2)
    half, _ = pixel_cross_entropy(tf.constant(logits), labels, num_replicas=2)
    assert float(half) == pytest.approx(float(loss) / 2)
    nothing, _ = pixel_cross_entropy(tf.constant(logits), np.full_like(labels, VOID))
    assert float(nothing) == 0


def test_heads_are_those_of_the_paper():
    d6 = FCNHead(num_classes=21, **HEADS["d6"]["head"])
    d6.build((None, None, None, 2048))
    assert [c.dilation_rate for c in d6.convs] == [(6, 6), (6, 6)]
    # Two 3x3 convolutions, two normalisations, and the classifier with its bias.
    count = 9 * 2048 * 256 + 9 * 256 * 256 + 2 * 2 * 256 + 256 * 21 + 21
    assert sum(np.prod(v.shape) for v in d6.trainable_variables) == count
    assert d6.classifier.kernel.numpy().std() == pytest.approx(0.01, rel=0.1)
    kernel = d6.convs[0].kernel.numpy()
    assert kernel.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    d8 = FCNHead(num_classes=150, **HEADS["d8"]["head"])
    d8.build((None, None, None, 256))
    assert d8.concat_conv.kernel.shape == (3, 3, 256 + 512, 512)
    model = tiny("d8")
    assert model.auxiliary.convs[0].kernel.shape == (3, 3, 32, 256)
    assert model.auxiliary_weight == 0.4


def test_dropout_takes_whole_channels_by_key_and_place():
    layer = ChannelDropout(0.25)
    x = np.ones((4, 3, 3, 400), np.float32)
    out = layer(x, tf.constant([1, 2], tf.int64)).numpy()
    np.testing.assert_array_equal(out.max(axis=(1, 2)), out.min(axis=(1, 2)))
    kept = out[:, 0, 0] > 0  # (4, 400)
    np.testing.assert_allclose(out[:, 0, 0][kept], 1 / 0.75, rtol=1e-6)
    assert 0.7 < kept.mean() < 0.8 and (kept[0] != kept[1]).any()
    np.testing.assert_array_equal(layer(x, tf.constant([1, 2], tf.int64)), out)
    assert (layer(x, tf.constant([1, 3], tf.int64)).numpy() != out).any()


@pytest.mark.slow
def test_xla_equals_the_plain_step(float64):
    """Dropout included: the same channels go."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(2, 33, 33, 3)))
    labels = tf.constant(rng.integers(0, 4, (2, 33, 33)), tf.uint8)
    found = []
    for jit in (False, True):
        model = tiny("d8")
        model.compile(optimizer=SGD(0.1))
        model.optimizer.build(model.trainable_variables)
        step = tf.function(lambda *d, m=model: m.train_step(d), jit_compile=jit)
        step(images, labels)
        found.append([v.numpy() for v in model.variables])
    for plain, compiled in zip(*found, strict=True):
        np.testing.assert_allclose(plain, compiled, rtol=1e-8, atol=1e-9)


def disagreement(image, labels):
    """Share of wrong greys inside of regions; and the share of what is inside."""
    same = ndimage.minimum_filter(labels, 7) == ndimage.maximum_filter(labels, 7)
    same &= labels != VOID
    error = np.abs(image[same][:, 0].astype(float) - GREYS[labels[same]])
    return (error > 1).sum() / max(same.sum(), 1), same.mean()


def test_labels_move_with_the_image():
    augment = Augmentation(scale=(120, 60), crop_size=48)
    shares, sizes = [], set()
    for seed in range(40):
        image, labels = Regions().load(seed)
        image, labels = augment(image, labels, np.random.default_rng(seed))
        assert image.shape[:2] == labels.shape and max(labels.shape) <= 48
        wrong, share = disagreement(image, labels)
        # Where an image shrinks, labels of single pixels are passed over; greys that
        # had moved otherwise would be wrong in half of them.
        assert wrong < 0.1
        shares.append(share)
        sizes.add(labels.shape)
    assert np.mean(shares) > 0.1 and (48, 48) in sizes and len(sizes) > 3


def test_crops_are_parts_of_the_resized_image():
    """The cut equals the same cut of the whole image, resized by Pillow."""
    from PIL import Image

    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (50, 70), dtype=np.uint8)
    augment = Augmentation(scale=(140, 70), crop_size=40, ratios=(1.0, 1.0), flip=0.0)
    found, classes = augment(image, labels, np.random.default_rng(1))
    size = fitted_size(50, 70, (140, 70))
    assert size == (70, 98)
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], Image.BILINEAR))
    windows = np.lib.stride_tricks.sliding_window_view(whole, (40, 40, 3))[:, :, 0]
    error = np.abs(windows.astype(int) - found).max(axis=(2, 3, 4))
    assert error.min() <= 1
    top, left = np.unravel_index(error.argmin(), error.shape)
    nearest = np.asarray(Image.fromarray(labels).resize(size[::-1], Image.NEAREST))
    np.testing.assert_array_equal(nearest[top : top + 40, left : left + 40], classes)


def test_crops_of_one_class_are_drawn_again():
    labels = np.zeros((100, 100), np.uint8)
    labels[:, 70:] = 1
    image = np.zeros((100, 100, 3), np.uint8)

    def shares(most):
        augment = Augmentation(
            scale=(100, 100), crop_size=30, ratios=(1.0, 1.0), cat_max_ratio=most
        )
        cuts = [augment(image, labels, np.random.default_rng(i))[1] for i in range(40)]
        return np.array([max(c.mean(), 1 - c.mean()) for c in cuts])

    assert (shares(0.75) >= 0.75).mean() < 0.2 < 0.5 < (shares(1.0) >= 0.75).mean()


def test_colours_change_as_in_hsv():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 5, 3)).astype(np.float32)
    pixels[0, 0] = 100  # grey: no hue
    turned, saturated = turn_hue(pixels, 0.1), change_saturation(pixels, 1.3)
    for place in np.ndindex(6, 5):
        h, s, v = colorsys.rgb_to_hsv(*pixels[place] / 255)
        expected = np.multiply(colorsys.hsv_to_rgb((h + 0.1) % 1, s, v), 255)
        np.testing.assert_allclose(turned[place], expected, atol=0.01)
        expected = np.multiply(colorsys.hsv_to_rgb(h, min(1.3 * s, 1), v), 255)
        np.testing.assert_allclose(saturated[place], expected, atol=0.01)
    image = pixels.astype(np.uint8)
    changed = [distort_colors(image, np.random.default_rng(i)) for i in range(20)]
    assert any((c == image).all() for c in changed)
    assert sum((c != image).any() for c in changed) > 10


def test_the_stream_goes_on_anywhere():
    augment = Augmentation(scale=(120, 60), crop_size=48, distort=True)
    whole = crop_dataset(Regions(), augment, batch_size=3, seed=1).take(5)
    tail = crop_dataset(Regions(), augment, batch_size=3, seed=1, start_step=3).take(2)
    whole, tail = (list(d.as_numpy_iterator()) for d in (whole, tail))
    for expected, found in zip(whole[3:], tail, strict=True):
        np.testing.assert_array_equal(expected[0], found[0])
        np.testing.assert_array_equal(expected[1], found[1])
    other = next(iter(crop_dataset(Regions(), augment, batch_size=3, seed=2)))
    assert (other[0].numpy() != whole[0][0]).any()


def test_padding_is_void_and_the_mean_colour():
    augment = Augmentation(scale=(40, 40), crop_size=64, ratios=(1.0, 1.0), flip=0.0)
    images = Regions()
    batches = crop_dataset(images, augment, batch_size=images.num_images)
    batch, labels = next(batches.as_numpy_iterator())
    assert batch.shape == (5, 64, 64, 3) and labels.dtype == np.uint8
    sizes = []
    for image, classes in zip(batch, labels, strict=True):
        inside = classes != VOID
        height, width = inside[:, 0].sum(), inside[0].sum()
        assert inside[:height, :width].all() and inside.sum() == height * width
        assert not image[~inside].any() and max(height, width) == 40
        sizes.append((height, width))
        grey = normalize(tf.constant(GREYS[classes[0, 0]] * np.ones(3, np.float32)))
        np.testing.assert_allclose(image[0, 0], grey, atol=1e-5)
    # Every image comes once in a pass.
    every = [fitted_size(*images.load(i)[1].shape, (40, 40)) for i in range(5)]
    assert sorted(sizes) == sorted(every)


def test_windows_and_the_whole_image():
    model = tiny("d6")
    image, _ = Regions().load(2)  # smaller than the window
    whole, sliding = Predictor(model), Predictor(model, window=96, stride=64)
    np.testing.assert_array_equal(whole.logits(image), sliding.logits(image))
    np.testing.assert_array_equal(whole(image), sliding(image))
    assert whole(image).shape == image.shape[:2]
    # Windows are averaged by how many see a pixel.
    bias = np.arange(4, dtype=np.float32)
    model.head.classifier.set_weights([np.zeros((1, 1, 12, 4)), bias])
    for stride in (17, 32):
        predict = Predictor(model, scale=(200, 50), window=32, stride=stride)
        logits = predict.logits(np.zeros((50, 77, 3), np.uint8))
        np.testing.assert_allclose(logits, np.tile(bias, (50, 77, 1)), atol=1e-6)
        assert (predict(image) == 3).all()
    with pytest.raises(ValueError, match="between 1 and the window"):
        Predictor(model, window=32, stride=33)


def test_scores_and_picture(tmp_path):
    images = Regions()
    perfect = {images.load(i)[0].tobytes(): images.load(i)[1] for i in range(5)}
    scores = evaluate(lambda image: perfect[image.tobytes()], images)
    assert scores["miou"] == scores["pixel_accuracy"] == 1.0
    images.num_classes = 6  # two have no pixel
    scores = evaluate(lambda image: perfect[image.tobytes()], images)
    assert scores["miou"] == 1.0 and np.isnan(scores["class_iou"][4:]).all()
    pictures, truths = zip(*(images.load(i) for i in range(2)), strict=True)
    truths[0][:5] = VOID
    save_masks(tmp_path / "a" / "masks.png", pictures, truths, truths, "abcd")
    assert (tmp_path / "a" / "masks.png").stat().st_size > 1000


def train(strategy, steps=2):
    """Two steps on four images; the last two are mostly void."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 33, 33, 3))
    labels = rng.integers(0, 4, (4, 33, 33))
    labels[2:, 3:] = VOID
    with strategy.scope():
        model = tiny("d8")
        model.compile(optimizer=SGD(0.1, l2=1e-4))
        model.optimizer.build(model.trainable_variables)
    share = 4 // strategy.num_replicas_in_sync

    def part(values):
        return strategy.experimental_distribute_values_from_function(
            lambda c: tf.constant(values[c.replica_id_in_sync_group * share :][:share])
        )

    data = (part(images), part(labels))
    step = tf.function(lambda *batch: strategy.run(model.train_step, args=(batch,)))
    for _ in range(steps):
        logs = step(*data)
    logs = {k: strategy.experimental_local_results(v)[0] for k, v in logs.items()}
    return [v.numpy() for v in model.variables], {k: float(v) for k, v in logs.items()}


@pytest.mark.slow
def test_replicas_equal_one_device(mirrored, float64):
    """Batch statistics, void pixels, dropout and the auxiliary head included."""
    one, logs = train(mirrored(1))
    two, other = train(mirrored(2))
    assert max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) < 1e-9
    assert logs == pytest.approx(other, rel=1e-9) and 0 < logs["pixel_accuracy"] < 1


def test_fit_learns_and_round_trips(tmp_path):
    model = tiny("d6")
    model.compile(optimizer=SGD(0.05, l2=1e-4))
    augment = Augmentation(scale=(100, 50), crop_size=33)
    dataset = crop_dataset(Regions(), augment, batch_size=4)
    history = model.fit(dataset, epochs=2, steps_per_epoch=15, verbose=0).history
    assert history["loss"][1] < 0.9 * history["loss"][0]
    assert int(model.step.numpy()) == 30
    model.save(tmp_path / "segmenter.keras")
    loaded = keras.models.load_model(tmp_path / "segmenter.keras")
    x = np.random.default_rng(0).normal(size=(1, 40, 56, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x), loaded(x))
    assert loaded.class_names == Regions.class_names
    assert loaded.encoder.contract_dilation and loaded.encoder.output_stride == 16


@pytest.mark.parametrize("head", ["d6", "d8"])
def test_checkpoints_hold_every_variable(head, tmp_path):
    """Moving statistics too, of which an optimizer knows nothing."""
    first, second = tiny(head, seed=1), tiny(head, seed=2)
    for number, variable in enumerate(first.variables):
        variable.assign(np.full(variable.shape, number + 1))
    tf.train.Checkpoint(model=first).write(str(tmp_path / "state"))
    tf.train.Checkpoint(model=second).read(str(tmp_path / "state"))
    for number, variable in enumerate(second.variables):
        assert (variable.numpy() == number + 1).all(), variable.path


def test_bfloat16_logits_are_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny("d8")
    x = np.zeros((1, 33, 33, 3), np.float32)
    assert model(x).dtype == tf.float32
    assert model.head.convs[0].compute_dtype == "bfloat16"
    assert model.encoder.get_layer("conv1").compute_dtype == "bfloat16"


def test_encoders_without_stages_are_refused():
    encoder = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3)]
    )
    with pytest.raises(TypeError, match="must be a slotcon_tf.ResNet"):
        dilated(encoder, 16)
    with pytest.raises(ValueError, match="Set it to 0"):
        Segmenter(encoder, class_names="ab", **HEADS["d8"])
    Segmenter(encoder, class_names="ab", **HEADS["d6"])
