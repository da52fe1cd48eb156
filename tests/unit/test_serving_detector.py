"""A served detector finds what the one in memory finds, to the last bad file."""

import json

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from export.compare import compare
from export.detections import ResultWriter
from export.extraction import ExtractionError, Images, RequestError, extract
from export.extraction_settings import ExtractionSettings
from slotcon_tf import backbone
from slotcon_tf.detection import Detector
from slotcon_tf.detection.resize import shortest_edge_size
from slotcon_tf.images.decoding import decode_image
from slotcon_tf.images.squares import resized_in_graph
from slotcon_tf.runs.exporting import ExportConfig, export
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.decoding import REASONS
from slotcon_tf.serving.detector import (
    DetectorOptions,
    ServedDetector,
    shortest_edge_in_graph,
)
from slotcon_tf.serving.detector_folding import fold_detector
from tests.support.detection_case import recorded
from tests.support.detector_case import small_detector
from tests.support.picture_case import encoded, pictures
from tests.support.saved_case import files

SHORT, LONG = 64, 96


@pytest.fixture(scope="module")
def model():
    return small_detector(short_edge=SHORT, long_edge=LONG)


@pytest.fixture(scope="module")
def served(model):
    """Function of files to the answer, as the graph that is exported gives it."""
    options = DetectorOptions(max_pixels=20_000)
    ((function, signature),) = (
        ServedDetector(model, options=options).signatures().values()
    )
    graph = tf.function(function, signature, autograph=False)

    def answer(content):
        found = graph(tf.constant(content, tf.string))
        return {name: value.numpy() for name, value in found.items()}

    return answer


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


@pytest.mark.slow
def test_it_finds_what_the_detector_finds(model, served):
    """Exactly so where no pixel is resized; else a few are a grey level off."""
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


@pytest.mark.slow
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
    assert nothing["boxes"].shape == (0, 5, 4) and nothing["names"].shape == (0, 5)


def test_folding_changes_nothing_but_rounding(model):
    images = tf.random.stateless_normal((1, 64, 96, 3), (1, 2))
    truth = model.feature_maps(images, training=False)
    for dtype, most in (("float32", 1e-5), ("bfloat16", 0.03)):
        folded = fold_detector(model, dtype)
        assert not [v.path for v in folded.variables if "moving" in v.path]
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


@pytest.mark.parametrize("size", [(97, 129), (31, 42), (64, 85), (60, 80)])
def test_pixels_are_nearly_all_pillows(size):
    for picture in pictures():
        found = resized_in_graph(picture, size)
        image = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR)
        apart = np.abs(found - np.asarray(image, np.float32))
        assert apart.max() <= 2 and (apart > 0).mean() < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quantize": "int8", "calibration_images": "a"},
            "`quantize` must be left out",
        ),
        ({"image_size": 64}, "`image_size` must be left out for a detector"),
        ({"long_edge": 50}, "`long_edge` must be no shorter.*50 and short_edge=64"),
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


def predicted(content):
    """Two objects in every file that is not empty; and what is asked in pairs fails."""
    if len(content) > 1:
        raise RequestError("too many at once")
    boxes = np.array([[[0, 0, 4, 4], [1, 1, 3, 2], [0, 0, 0, 0]]], np.float32)
    second = content[0].endswith(b"b")
    names = [[b"cat", b"a very long name", b""]] if second else [[b"cat"] * 3]
    return {
        "boxes": boxes,
        "scores": np.array([[0.75, 0.5, 0]], np.float32),
        "classes": np.array([[0, 4, 0]], np.int32),
        "names": np.array(
            names if content[0].endswith(b"b") else [[b"cat"] * 3], object
        ),
        "number": np.array([1 + second], np.int32),
        "size": np.array([[5, 6]], np.int32),
    }


@pytest.fixture
def images(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG" + name.encode())
    return Images(tmp_path, tuple(sorted(tmp_path.glob("*.png"))))


def test_texts_of_any_length_in_tables(images, tmp_path):
    for output in ("a.npz", "a.parquet"):
        found = extract(predicted, images, tmp_path / output, settings={}, batch_size=2)
        assert not found
    names = np.load(tmp_path / "a.npz")["names"]
    assert names.shape == (3, 3) and names[1].tolist() == [
        "cat",
        "a very long name",
        "",
    ]
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["names"].to_pylist() == names.tolist()
    assert table.schema.field("boxes").metadata == {b"shape": b"3,4"}


def test_results_without_masks_and_with_own_numbers(images, tmp_path):
    output = tmp_path / "a.json"
    extract(predicted, images, output, settings={}, write=ResultWriter(images))
    results = json.loads(output.read_text())
    assert [one["image_id"] for one in results] == [1, 2, 2, 3]
    assert results[2] == {
        "image_id": 2,
        "category_id": 5,
        "bbox": [1.0, 1.0, 2.0, 1.0],
        "score": 0.5,
    }
    about = json.loads((tmp_path / "a.images.json").read_text())
    names = [{"id": 1, "name": "cat"}, {"id": 5, "name": "a very long name"}]
    assert about["categories"] == names
    assert about["images"][2] == {
        "id": 3,
        "file_name": "c.png",
        "height": 5,
        "width": 6,
    }


def test_a_class_needs_its_category_and_the_work_is_kept(images, tmp_path):
    listed = [{"id": i, "file_name": name} for i, name in enumerate(images.names)]
    content = {"images": listed, "categories": [{"id": 3, "name": "cat"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    output = tmp_path / "a.json"

    def run(predict, annotations):
        writer = ResultWriter(images, annotations)
        extract(predict, images, output, settings={}, batch_size=1, write=writer)

    with pytest.raises(ExtractionError, match="none of the name 'a very long name'"):
        run(predicted, tmp_path / "coco.json")
    assert not output.exists()
    run(None, None)  # nothing is asked again
    assert len(json.loads(output.read_text())) == 4
    (tmp_path / "coco.json").write_text("[]")
    with pytest.raises(ValueError, match="a file in COCO's layout"):
        run(None, tmp_path / "coco.json")


def test_answers_of_another_model_are_told(images, tmp_path):
    def predict(content):
        return {"pooled": np.zeros((len(content), 3))}

    with pytest.raises(ExtractionError, match="Received: no boxes. Ask the signature"):
        writer = ResultWriter(images)
        extract(predict, images, tmp_path / "a.json", settings={}, write=writer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "a.json"}, "set signature=detect"),
        ({"output": "a.txt"}, r"must end in .npz or .parquet, or in .json"),
        ({"output": "a.npz", "pictures": "p"}, "`pictures` is for an output that ends"),
    ],
)
def test_outputs_that_do_not_fit(settings, message):
    with pytest.raises(SettingError, match=message):
        ExtractionSettings(images="photos", **settings)


def test_detectors_are_not_compared_by_features():
    with pytest.raises(ValueError, match="image_bytes or embed. Received: detect"):
        compare({"detect": (None, None)}, {"image_bytes": (None, None)}, ["a.jpg"])
