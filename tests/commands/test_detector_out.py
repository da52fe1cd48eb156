"""A detector from its file to a server, and COCO's results of a folder from there."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf.detection import Detector
from slotcon_tf.detection.results import image_results
from slotcon_tf.images.decoding import decode_image
from slotcon_tf.serving.detector import LABELS_FILE
from slotcon_tf.serving.warmup import WARMUP_FILE
from tests.support.command import ENVIRONMENT, free_ports, module, modules
from tests.support.detector_case import small_detector
from tests.support.picture_case import pictures
from tests.support.serving_case import serving

# TensorFlow without this project, and in a session, as TF Serving has it.
_BARE = """
import sys, tensorflow.compat.v1 as tf
with tf.Session(graph=tf.Graph()) as session:
    meta = tf.saved_model.loader.load(session, ["serve"], sys.argv[1])
    detect = meta.signature_def["detect"]
    wanted = [detect.outputs[name].name for name in ("number", "names")]
    files = {detect.inputs["image_bytes"].name: [open(sys.argv[2], "rb").read()]}
    number, names = session.run(wanted, files)
assert not [name for name in sys.modules if "slotcon" in name]
print(number[0], names[0, 0].decode())
"""


@pytest.fixture(scope="module")
def model():
    return small_detector(short_edge=64, long_edge=96)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """Folder of versions, exported from a run's folder as a user types it."""
    run = tmp_path_factory.mktemp("run")
    model.save(run / "detector.keras")
    folder = tmp_path_factory.mktemp("served") / "detector"
    module("export.saved_model", f"--model={run}", f"--export_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three that need no resizing, in two folders, and a bad one."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for name, picture in zip(("7", "12", "more/30"), pictures(), strict=True):
        image = Image.fromarray(picture).resize((84, 64))
        image.save(folder / f"{name}.png")
    (folder / "99.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def expected(found):
    return copy.deepcopy(found)


@pytest.fixture(scope="module")
def found(model, photos):
    """COCO's results of the detector in memory, in the order of the images."""
    detector, results = Detector(model), []
    for name in ("12.png", "7.png", "more/30.png"):
        image = decode_image((photos / name).read_bytes())
        about = type("", (), {"height": 64, "width": 84})
        about.image_id = int(name.rpartition("/")[2].removesuffix(".png"))
        results += image_results(detector(image), about, (1, 2, 3))
    return results


def assert_same(path, expected):
    found = json.loads(path.read_text())
    assert len(found) == len(expected) > 3
    for one, two in zip(found, expected, strict=True):
        assert one.keys() == two.keys() and one["category_id"] == two["category_id"]
        assert one["image_id"] == two["image_id"]
        np.testing.assert_allclose(one["bbox"], two["bbox"], atol=1e-3)
        np.testing.assert_allclose(one["score"], two["score"], atol=1e-5)
        assert one["segmentation"] == two["segmentation"]


@pytest.mark.slow
def test_a_server_gives_cocos_results(model, served, photos, expected, tmp_path):
    asked = [f"--images={photos}", "--signature=detect"]
    (rest,) = free_ports(1)
    with serving(served, f"--rest_port={rest}") as server:
        client = ["export.client", *asked, "--deadline_s=300", "--concurrency=1"]
        by_grpc, by_rest, other = modules(
            [
                *(*client, f"--server={server.address}"),
                *(f"--output={tmp_path / 'grpc.json'}", f"--pictures={tmp_path / 'p'}"),
            ],
            [
                *(*client, f"--server=127.0.0.1:{rest}", "--transport=rest"),
                f"--output={tmp_path / 'rest.json'}",
            ],
            [
                *(*client, f"--server={server.address}", "--signature=groups"),
                f"--output={tmp_path / 'a.npz'}",
            ],
            check=False,
        )
    for done in (by_grpc, by_rest):
        assert done.returncode == 0, done.stderr[-2000:]
        assert "failed: 99.jpg (no known image format)" in done.stderr
        assert "3 of 4 images in" in done.stdout
    for name in ("grpc.json", "rest.json"):
        assert_same(tmp_path / name, expected)
    assert other.returncode == 1 and "Traceback" not in other.stderr
    assert (
        "must be one that takes image_bytes: ['detect']. Received: 'groups'"
        in other.stderr
    )
    about = json.loads((tmp_path / "grpc.images.json").read_text())
    assert {"id": 30, "file_name": "more/30.png", "height": 64, "width": 84} in (
        about["images"]
    )
    assert {"id": 3, "name": "cow"} in about["categories"]
    assert len(about["images"]) == 3
    drawn = sorted(p.name for p in (tmp_path / "p").rglob("*.png"))
    assert drawn == ["12.png.png", "30.png.png", "7.png.png"]
    assert (served / "1" / LABELS_FILE).read_text() == "cat\ndog\ncow\n"
    assert len(list(tf.data.TFRecordDataset(str(served / "1" / WARMUP_FILE)))) == 1
    bare = subprocess.run(
        [sys.executable, "-c", _BARE, str(served / "1"), str(photos / "7.png")],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    count, name = bare.stdout.split()
    assert int(count) == sum(one["image_id"] == 7 for one in expected)
    assert name in model.class_names


@pytest.mark.slow
def test_straight_from_the_export(model, served, photos, expected, tmp_path):
    """With somebody's numbers, and what cannot be."""
    categories = [{"id": 10 * i, "name": n} for i, n in enumerate(model.class_names)]
    paths = {7: "train/7.png", 12: "train/12.png", 30: "30.png", 99: "99.jpg"}
    images = [{"id": k + 100, "file_name": name} for k, name in paths.items()]
    content = {"images": images, "categories": categories, "annotations": []}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    content["images"] = images[:2]
    (tmp_path / "few.json").write_text(json.dumps(content))
    line = ["export.extract", f"--export_dir={served}", f"--images={photos}"]
    line.append("--signature=detect")
    given, few, wrong = modules(
        [
            *(*line, f"--output={tmp_path / 'a.json'}"),
            f"--annotations={tmp_path / 'instances.json'}",
        ],
        [
            *(*line, f"--output={tmp_path / 'b.json'}"),
            f"--annotations={tmp_path / 'few.json'}",
        ],
        [*line, "--signature=image_bytes", f"--output={tmp_path / 'b.json'}"],
        check=False,
    )
    assert given.returncode == 0, given.stderr[-2000:]
    for one in expected:
        one["image_id"] += 100
        one["category_id"] = 10 * (one["category_id"] - 1)
    assert_same(tmp_path / "a.json", expected)
    assert few.returncode == 1 and wrong.returncode == 2
    assert "must have every image. Received:" in few.stderr.splitlines()[-1]
    assert "set --signature=detect" in wrong.stderr.splitlines()[-1]
    for done in (few, wrong):
        assert "Traceback" not in done.stderr
