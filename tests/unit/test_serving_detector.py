"""A served detector finds what the one in memory finds, to the last bad file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf import backbone
from slotcon_tf.detection import Detector
from slotcon_tf.detection.resize import shortest_edge_size
from slotcon_tf.images.decoding import decode_image
from slotcon_tf.images.squares import resized_in_graph
from slotcon_tf.runs.exporting import ExportConfig, export
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.decoding import REASONS
from slotcon_tf.serving.detector import (
    LABELS_FILE,
    DetectorOptions,
    export_detector,
    shortest_edge_in_graph,
)
from slotcon_tf.serving.detector_folding import fold_detector
from slotcon_tf.serving.warmup import WARMUP_FILE
from tests.support.detection_case import recorded
from tests.support.detector_case import small_detector
from tests.support.picture_case import encoded, pictures
from tests.support.saved_case import files, session_answers

SHORT, LONG = 64, 96


@pytest.fixture(scope="module")
def model():
    return small_detector(short_edge=SHORT, long_edge=LONG)


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    options = DetectorOptions(max_pixels=20_000)
    folder = tmp_path_factory.mktemp("served")
    return export_detector(model, folder, options=options, warmup_batches=(1, 2))


@pytest.fixture(scope="module")
def served(version):
    """Function of files to the answer, in a session as in TF Serving."""
    answer, names = session_answers(version)
    assert {"detect", "serving_default"} <= names
    return lambda content: answer("detect", np.array(content, object))


def assert_found(answer, place, found, atol):
    count = answer["number"][place]
    assert count == len(found) > 0
    for name in ("scores", "masks", "boxes", "classes"):
        ours = answer[name][place]
        truth = getattr(found, name)
        # Of a box's corners pixels, all else are shares of 1.
        scale = 100 if name == "boxes" else 1
        np.testing.assert_allclose(ours[:count], truth, atol=atol * scale, err_msg=name)
        assert not ours[count:].any()


def test_it_finds_what_the_detector_finds(model, served):
    """Exactly so where no pixel is resized; else pixels differ by a grey level."""
    detector = Detector(model)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned = encoded(pictures()[1], quality=95, exif=exif.tobytes())
    whole = np.asarray(Image.fromarray(pictures()[0]).resize((84, 64)))
    content = [encoded(whole, "PNG"), encoded(pictures()[0], "PNG"), turned]
    answer = served(content)
    assert answer["size"].tolist() == [[64, 84], [60, 80], [80, 60]]
    assert answer["ok"].all()
    for place, (data, atol) in enumerate(zip(content, (1e-5, 0.02, 0.02), strict=True)):
        assert_found(answer, place, detector(decode_image(data)), atol)
    names = np.array([b"cat", b"dog", b"cow"], object)[answer["classes"]]
    there = np.arange(names.shape[1]) < answer["number"][:, None]
    assert (answer["names"] == np.where(there, names, b"")).all()


def test_no_answer_hangs_on_the_others(served):
    content, reasons = files()
    answer = served(content)
    assert [REASONS[i] for i in answer["reason"]] == reasons
    for place, (data, reason) in enumerate(zip(content, reasons, strict=True)):
        alone = served([data])
        for name, values in answer.items():
            np.testing.assert_array_equal(values[place], alone[name][0], err_msg=name)
            if reason != "ok" and name != "reason":
                assert not np.any(values[place] != np.zeros_like(values[place])) or (
                    name == "names" and set(values[place]) == {b""}
                )
    nothing = served([])
    assert nothing["boxes"].shape == (0, 6, 4) and nothing["names"].shape == (0, 6)


def test_what_lies_beside_the_graph(version):
    assert (version / LABELS_FILE).read_text() == "cat\ndog\ncow\n"
    assert len(list(tf.data.TFRecordDataset(str(version / WARMUP_FILE)))) == 2
    variables = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    shapes = variables.get_variable_to_shape_map()
    assert not [name for name in shapes if "moving" in name]


def test_folding_changes_nothing_but_rounding(model):
    images = tf.random.stateless_normal((1, 64, 96, 3), (1, 2))
    truth = model.feature_maps(images, training=False)
    for dtype, most in (("float32", 1e-5), ("bfloat16", 0.03)):
        folded = fold_detector(model, dtype)
        for level, maps in folded.feature_maps(images, training=False).items():
            assert maps.dtype == tf.float32
            error = np.linalg.norm(maps - truth[level]) / np.linalg.norm(truth[level])
            assert error < most, (dtype, level)
        if dtype == "float32":
            found, masks = folded.detect(images)
    expected, probabilities = model.detect(images)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    np.testing.assert_allclose(masks, probabilities, atol=1e-5)


def test_edges_are_detectron2s():
    table = recorded("schedule")["resize/h_w_short_newh_neww"]
    sizes = [(row[:2], row[2], row[3:]) for row in table.tolist()]
    for size in ((60, 80), (80, 60), (50, 50), (7, 999), (999, 7), (1, 5000)):
        sizes.append((size, 48, shortest_edge_size(*size, 48, 1333)))
    for size, short, expected in sizes:
        found = shortest_edge_in_graph(tf.constant(size), short, 1333)
        assert found.numpy().tolist() == list(expected), (size, short)


@pytest.mark.parametrize("size", [(90, 120), (31, 42), (64, 85)])
def test_pixels_are_pillows_to_a_grey_level(size):
    for picture in pictures():
        scale = np.array(size) / picture.shape[:2]
        found = resized_in_graph(picture, size, tf.constant(scale, tf.float32))
        image = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR)
        assert np.abs(found - np.asarray(image, np.float32)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quantize": "int8", "calibration_images": "a"},
            "`quantize` must be left out",
        ),
        ({"image_size": 64}, "`image_size` must be left out for a detector"),
        ({"short_edge": 200}, "`long_edge` must be no less.*96 and short_edge=200"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message, model, tmp_path):
    model.save(tmp_path / "detector.keras")
    folder = tmp_path / "served"
    config = ExportConfig(model=tmp_path, export_dir=folder, **settings)
    with pytest.raises(SettingError, match=message):
        export(config)
    assert not folder.exists()


def test_an_encoder_has_no_edges(tmp_path):
    backbone("resnet10", width=4).save(tmp_path / "a.keras")
    config = ExportConfig(model=tmp_path / "a.keras", export_dir="b", short_edge=64)
    with pytest.raises(SettingError, match="`short_edge` must be left out for what is"):
        export(config)
    assert keras.models.load_model(tmp_path / "a.keras").width == 4
