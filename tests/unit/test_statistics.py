"""A run's own mean, deviation and pixel range: kept with the model, used by all."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from slotcon_tf import SGD, ResNet, SlotCon, WarmupCosine
from slotcon_tf.data import crop_pair_dataset
from slotcon_tf.encoders.copies import twin
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.images.statistics import (
    IMAGENET,
    ImageStatistics,
    statistics_of,
)
from slotcon_tf.interop import detectron2_config, mmsegmentation_config
from slotcon_tf.interop.keras_backbones import keras_hub_backbone
from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.initialization import initialize
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.segmentation import HEADS, Predictor, Segmenter, dilated
from slotcon_tf.segmentation.augmentation import Augmentation
from slotcon_tf.segmentation.dataset import crop_dataset
from slotcon_tf.serving.archive import serve
from slotcon_tf.serving.folding import fold_batch_norm
from slotcon_tf.serving.quantization import in_interpreter, quantize_int8
from slotcon_tf.serving.signatures import ServingOptions
from tests.support.command import TINY, modules
from tests.support.picture_case import Numbered
from tests.support.small_case import small_encoder
from trainers import check_data, convert
from trainers import pretrain as trainer

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
OWN = ImageStatistics(MEAN, STD, (0, 4095))
SIZES = {"total_steps": 4, "num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def tiny_resnet(**options):
    return ResNet(
        block="basic", stage_depths=(1, 1, 1, 1), width=4, name="tiny", **options
    )


@pytest.fixture(scope="module")
def model():
    own = {"mean": MEAN, "std": STD, "pixel_range": (0, 4095)}
    return SlotCon(tiny_resnet(), **SIZES, **own)


def normalized(images):
    return ((images / 255.0 - MEAN) / STD).astype(np.float32)


def test_the_default_is_imagenets_and_leaves_no_trace():
    default = SlotCon(tiny_resnet(), **SIZES)
    assert default.statistics == IMAGENET == statistics_of(keras.Sequential())
    config = default.get_config()
    assert "mean" not in config and "std" not in config
    assert "mean" not in config["encoder"]["config"]


def test_it_is_kept_with_model_and_encoder(model, tmp_path):
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", compile=False)
    for part in (again, again.encoder, again.teacher.encoder):
        assert part.statistics == OWN
    config = json.loads(json.dumps(model.get_config()))  # of a run's model.json
    assert SlotCon.from_config(config).statistics == OWN
    encoder = again.feature_extractor()
    encoder.save(tmp_path / "e.keras")
    encoder = keras.models.load_model(tmp_path / "e.keras", compile=False)
    assert encoder.statistics == dilated(encoder, 16).statistics == OWN
    assert SlotCon(encoder, **SIZES).statistics == OWN
    foreign = SlotCon(small_encoder(), mean=MEAN, std=STD, **SIZES)
    foreign.save(tmp_path / "f.keras")
    again = keras.models.load_model(tmp_path / "f.keras", compile=False)
    assert statistics_of(again.encoder) == ImageStatistics(MEAN, STD)


def test_what_a_file_does_not_keep_is_said(model, tmp_path):
    """Of an encoder that is no ResNet; a copy in memory has them."""
    foreign = SlotCon(small_encoder(), mean=MEAN, std=STD, **SIZES)
    with pytest.warns(UserWarning, match=r"mean=\(0.1, .*Save the whole") as caught:
        encoder = foreign.feature_extractor()
    assert caught[0].filename == __file__
    assert encoder.statistics == twin(encoder).statistics == foreign.statistics
    usual = SlotCon(small_encoder(), **SIZES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.feature_extractor()
        usual.feature_extractor()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mean": 0.5}, "`mean` must be three numbers.*Received: mean=0.5"),
        ({"std": "0.5"}, "`std` must be three numbers.*Received: std='0.5'"),
        ({"pixel_range": 255}, r"`pixel_range` must be \(low, high\).*Received: 255"),
        ({"pixel_range": (None, 255)}, r"Received: \(None, 255\)"),
        ({"total_steps": "4"}, "`total_steps` must be a number. Received: .*'4'"),
        ({"total_steps": None}, "`total_steps` must be a number"),
        ({"num_prototypes": 8.5}, "`num_prototypes` must be a whole number"),
        ({"projection_dim": "8"}, "`projection_dim` must be a whole number"),
        ({"teacher_momentum": (0.9,)}, "`teacher_momentum` must be a number"),
        ({"hidden_dim": 0}, "`hidden_dim` must be positive"),
    ],
)
def test_settings_of_other_kinds_are_refused_in_a_line(given, words):
    with pytest.raises(ValueError, match=words) as caught:
        SlotCon(small_encoder(), **{**SIZES, **given})
    assert "\n" not in str(caught.value)


def test_evaluation_and_export_normalise_by_it(model):
    truth = model.teacher.encoder(normalized(IMAGES), training=False).numpy()
    np.testing.assert_allclose(Inference(model).maps(IMAGES), truth, atol=1e-4)
    encoder = model.teacher.encoder
    np.testing.assert_allclose(Inference(encoder).maps(IMAGES), truth, atol=1e-4)
    for source in (model, encoder):
        served = serve(source, options=ServingOptions(image_size=64))
        found = served.features(tf.constant(IMAGES))["map"]
        np.testing.assert_allclose(found, truth, atol=1e-4)
    hub = keras_hub_backbone(encoder)
    np.testing.assert_allclose(hub(IMAGES * 1.0), truth, atol=1e-4)
    again = keras.Model.from_config(hub.get_config())
    assert again.get_layer("normalization").statistics.mean == MEAN
    run = in_interpreter(quantize_int8(fold_batch_norm(encoder), IMAGES, OWN))
    pooled = truth.mean(axis=(1, 2))
    assert np.abs(run(IMAGES) - pooled).max() < 0.1 * np.abs(pooled).max()


def test_the_toolboxes_are_told(model, tmp_path):
    (text,) = detectron2_config.texts(model.encoder, tmp_path / "w.pkl").values()
    assert "PIXEL_MEAN: [25.500, 51.000, 76.500]" in text
    assert "PIXEL_STD: [127.500, 153.000, 178.500]" in text
    for text in mmsegmentation_config.texts(model.encoder, tmp_path / "w.pth").values():
        assert "'mean': [25.5, 51.0, 76.5]" in text


def test_fine_tuning_goes_by_it(model):
    segmenter = Segmenter(
        dilated(model.teacher.encoder, 16), class_names=("a", "b"), **HEADS["d6"]
    )
    assert segmenter.statistics == OWN
    truth = segmenter(normalized(IMAGES[:1]), training=False)[0]
    got = Predictor(segmenter).logits(IMAGES[0])
    np.testing.assert_allclose(got, truth, atol=1e-4)

    class Grey:
        num_images = 2

        def load(self, index):
            labels = np.repeat(np.uint8([0, 1]), 20)[:, None].repeat(40, axis=1)
            return np.full((40, 40, 3), 102, np.uint8), labels

    augment = Augmentation(
        scale=(40, 40), crop_size=16, ratios=(1, 1), cat_max_ratio=1.0, distort=False
    )
    images, _ = next(iter(crop_dataset(Grey(), augment, batch_size=2, statistics=OWN)))
    expected = np.broadcast_to(normalized(np.float32([102, 102, 102])), images.shape)
    np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_views_are_normalised_by_it(augment_on):
    """A black view of view a's kind: what is left is the mean's share."""
    from slotcon_tf.data.photometric import apply_distortions

    class Black(Numbered):
        def load(self, index):
            return np.zeros((40, 40, 3), np.uint8)

    options = {"batch_size": 5, "image_size": 16, "augment_on": augment_on}
    batch = next(iter(crop_pair_dataset(Black(), mean=MEAN, std=STD, **options)))
    view = apply_distortions(batch)["view_a"].numpy()
    black = normalized(np.zeros(3, np.float32))
    np.testing.assert_allclose(view, np.broadcast_to(black, view.shape), atol=1e-5)


@pytest.mark.slow
def test_a_model_learns_from_turned_views_of_its_own_statistics():
    keras.utils.set_random_seed(0)
    own = {"mean": MEAN, "std": STD}
    model = SlotCon(small_encoder(), accumulate_steps=2, **SIZES, **own)
    model.compile(SGD(WarmupCosine(peak=0.1, warmup_steps=1, total_steps=4)))
    options = {"batch_size": 4, "image_size": 64, "augment_on": "device", **own}
    turned = {"vertical_flip": True, "rotate90": True}
    history = model.fit(
        crop_pair_dataset(Numbered(), **options, **turned), epochs=2, verbose=0
    )
    assert np.isfinite(history.history["loss"]).all() and int(model.step.numpy()) == 4


def test_weights_of_other_statistics_are_said(model, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(logging, "warning", lambda text, *a: found.append(text % a))
    model.feature_extractor().save(tmp_path / "e.keras")
    initialize(SlotCon(tiny_resnet(), **SIZES), str(tmp_path / "e.keras"))
    (text,) = found
    assert "mean=(0.1, 0.2, 0.3)" in text and "mean=(0.485" in text and "`mean`" in text
    own = {"mean": MEAN, "std": STD, "pixel_range": (0, 4095)}
    initialize(SlotCon(tiny_resnet(), **SIZES, **own), str(tmp_path / "e.keras"))
    assert len(found) == 1


def test_what_a_file_of_others_cannot_say_is_said(model, tmp_path, capsys):
    model.save(tmp_path / "m.keras")
    words = ["convert", str(tmp_path / "m.keras"), f"--output={tmp_path / 'w.pth'}"]
    with pytest.raises(SystemExit, match="0"):
        convert.main([*words, "--to=torchvision"])
    assert "images have mean (0.1, 0.2, 0.3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--mean=123,116,103", "--std=58,57,57"], "as shares of 255.*Divide grey lev"),
        (["--mean=0.5", "--std=0.5"], "`mean` must be three numbers"),
        (["--mean=0.5,0.5,0.5"], "must be given together"),
        (["--mean=a,b,c", "--std=1,1,1"], "`mean` must be numbers, with commas"),
        (
            ["--mean=0.5,0.5,0.5", "--std=0,1,1"],
            "`std` must be three numbers from 0.000",
        ),
        (["--pixel_range=4095"], "pixel_range` must be .low, high."),
        (["--pixel_range=9,1"], "pixel_range` must be .low, high."),
        (["--pixel_range=0,nan"], "pixel_range` must be .low, high."),
    ],
)
def test_flags_that_are_none(flags, reason):
    with pytest.raises(SettingError, match=reason):
        trainer.main.config(["pretrain", *flags])
    if "pixel" in reason:
        with pytest.raises(SettingError, match=reason):
            check_data.main.config(["check_data", "--data_dir=a", *flags])


def test_flags_that_are():
    flags = ["--mean=0.1,0.2,0.3", "--std=0.5,0.6,0.7", "--pixel_range=0,4095"]
    config = trainer.main.config(["pretrain", *flags])
    assert ImageStatistics(**config.statistics) == OWN
    assert not any(PretrainConfig().statistics.values())


@pytest.mark.slow
def test_a_run_of_twelve_bit_pictures(tmp_path):
    """The flags reach views, model, export and the evaluation that reads like them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        values = (
            rng.integers(0, 900, (6, 8)).astype(np.uint16).repeat(8, 0).repeat(8, 1)
        )
        Image.fromarray(values).save(photos / f"{index}.png")
    options = [f for f in TINY if "dataset" not in f]
    options += [f"--data_dir={photos}", "--epochs=1", "--vertical_flip", "--rotate90"]
    options += ["--mean=0.1,0.1,0.1", "--std=0.2,0.2,0.2", "--pixel_range=0,4095"]
    run, page = tmp_path / "run", tmp_path / "page.html"
    line = ["trainers.pretrain", *options, f"--workdir={run}"]
    shown = [f"--model={run}", f"--data_dir={photos}", f"--output={page}"]
    done, other, drawn = modules(
        line,
        [*line, "--mean=0.2,0.2,0.2"],
        ["trainers.visualize", *shown],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # 900 is 56 of 255 in this range, and (56 / 255 - 0.1) / 0.2 = 0.6; the jitter may
    # brighten that. In the range of 1023 it would be 3.9.
    line = next(x for x in done.stderr.splitlines() if "First batch, view_a" in x)
    low, high = map(float, line.rpartition("[")[2].rstrip("]").split(","))
    assert low >= -0.51 and 0 < high < 2
    config = json.loads((run / "model.json").read_text())
    assert config["mean"] == [0.1] * 3 and config["pixel_range"] == [0, 4095]
    again = (run / "pretrain.flags").read_text()
    assert "--rotate90" in again and "--pixel_range=0,4095" in again
    loaded = tf.saved_model.load(str(run / "export" / "1"))
    model = keras.models.load_model(run / "slotcon.keras", compile=False)
    assert model.pixel_range == (0, 4095)
    truth = model.encoder((IMAGES[:, :32, :32] / 255 - 0.1) / 0.2, training=False)
    assert truth.shape == loaded(IMAGES[:, :32, :32])["map"].shape
    assert other.returncode == 1 and "another configuration" in other.stderr
    assert drawn.returncode == 0 and page.exists(), drawn.stderr[-2000:]
