"""Two exports of one model agree; another model's do not."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export.compare import compare, missing
from export.distances import TooFar, check
from export.loading import load_version
from slotcon_tf import SlotCon
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.decoding import decode_batch
from slotcon_tf.serving.formats import EMPTY, OK, REASONS
from tests.support.command import modules
from tests.support.golden_case import CHECKPOINT
from tests.support.picture_case import pictures
from tests.support.saved_case import OPTIONS


@pytest.fixture(scope="module")
def exports(exported, tmp_path_factory):
    """Versions: 1 float32, 2 the same in bfloat16, 3 the student; and images."""
    folder = tmp_path_factory.mktemp("exports")
    model = SlotCon.from_preset(CHECKPOINT)
    shutil.copytree(exported, folder / "served" / "1")
    for options in ({"precision": "bfloat16"}, {"which": "student"}):
        export_model(model, folder / "served", options=OPTIONS, **options)
    photos = folder / "photos"
    photos.mkdir()
    for index, picture in enumerate(pictures(5)):
        Image.fromarray(picture).save(photos / f"{index}.png")
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff no")
    return folder


@pytest.mark.slow
def test_files_go_as_they_are_sent(tmp_path):
    """A TIFF is compared too; a newer model's reason has a number."""
    for name in ("a.png", "b.tif"):
        Image.fromarray(pictures(1)[0]).save(tmp_path / name)
    (tmp_path / "c.tif").write_bytes(b"II*\0 no")
    (tmp_path / "d.png").write_bytes(b"")
    newer = len(REASONS)

    def function(content):
        images, reasons = decode_batch(content, 16, crop=False, max_pixels=10**6)
        codes = tf.where(reasons == EMPTY, newer, reasons)
        pooled = tf.reduce_mean(images, [1, 2])
        return {"pooled": pooled, "ok": reasons == OK, "reason": codes}

    model = {"image_bytes": (function, None)}
    found = compare(model, model, sorted(tmp_path.iterdir()))
    np.testing.assert_allclose(found["cosine"], [1, 1], atol=1e-6)
    bad = {pathlib.Path(path).name: why for path, why in found["bad"].items()}
    assert set(bad) == {"c.tif", "d.png"} and bad["d.png"] == f"reason {newer}"


@pytest.mark.slow
def test_drift(exports):
    versions = [load_version(exports / "served" / str(n)) for n in (1, 2, 3)]
    paths = sorted((exports / "photos").iterdir())
    same, half, other = (compare(versions[0], v, paths, 4) for v in versions)
    assert list(same["bad"].values()) == ["damaged"] and len(same["cosine"]) == 5
    for name in ("cosine", "same_prototype", "rand_index"):
        np.testing.assert_allclose(same[name], 1, atol=1e-6)
    # The student is another draw of weights than the teacher, on purpose.
    assert 0.995 < half["cosine"].min() < 1
    assert other["cosine"].mean() < 0.9
    assert other["rand_index"].mean() < half["rand_index"].mean()


@pytest.mark.slow
def test_command_line(exports):
    photos = f"--images={exports / 'photos'}"
    served = exports / "served"
    lines = (
        ["export.compare", served / version, served, photos] for version in ("1", "9")
    )
    gate = ["export.compare", served / "1", served / "3", photos]
    gate = (*lines, [*gate, "--max_distance=0.01"])
    done, none, far = modules(*gate, check=False)
    assert far.returncode == 1 and "`pooled` must be within 0.01" in far.stderr
    assert "Traceback" not in far.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    assert "5 images" in done.stdout and "rand_index" in done.stdout
    assert "bad.jpg (damaged)" in done.stdout
    assert none.returncode == 1 and "No SavedModel in" in none.stderr


def fake_export(move, refused=()):
    """As `load_version` gives it: features of the length of a file."""

    def function(content):
        data = [bytes(each) for each in content.numpy()]
        codes = np.array([4 if each in refused else 0 for each in data])
        angles = np.array([len(each) + move * (len(each) == 12) for each in data])
        pooled = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return {"pooled": pooled, "ok": codes == 0, "reason": codes}

    return {"image_bytes": (function, None)}


def test_the_gate_names_output_image_and_distance(tmp_path):
    paths = [tmp_path / f"{n}.jpg" for n in (11, 12, 13)]
    for path in paths:
        path.write_bytes(b"\xff\xd8\xff" + b"." * (int(path.stem) - 3))
    found = compare(fake_export(0), fake_export(0.1), paths)
    check(found)
    check(found, max_distance=0.11)  # 2 sin(0.05) = 0.1
    told = "`pooled` must be within 0.05 .*Received: 0.1 for .*12.jpg, .* 1 of 3"
    with pytest.raises(TooFar, match=told):
        check(found, max_distance=0.05)
    with pytest.raises(ValueError, match="needs groups in both"):
        check(found, max_group_distance=0.5)
    grouped = {**found, "rand_index": np.array([0.9, 1.0, 0.4])}
    with pytest.raises(TooFar, match="`assignments` .*Received: 0.6 for .*13.jpg"):
        check(grouped, 0.2, 0.5)
    refusing = fake_export(0, refused=[paths[0].read_bytes()])
    with pytest.raises(TooFar, match="11.jpg, ok of the first and damaged of the"):
        check(compare(fake_export(0), refusing, paths), max_distance=1)


def test_the_gate_sees_lengths_and_what_is_missing(tmp_path):
    """Cosines do not: features a thousand times as large have a cosine of 1."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff")

    def larger(content):
        found = fake_export(0)["image_bytes"][0](content)
        return {**found, "pooled": 1000 * found["pooled"]}

    # Versions for search have `embed` alone.
    found = compare(fake_export(0), {"embed": (larger, None)}, [path])
    np.testing.assert_allclose(found["cosine"], 1)
    with pytest.raises(TooFar, match="Received: 999 for .*a.jpg"):
        check(found, max_distance=1e-6)
    outputs = {"embed": ["ok", "pooled"], "groups": ["confidence", "ok"]}
    lost = missing(outputs, {"embed": ["ok"]})
    with pytest.raises(TooFar, match="none of embed.pooled, groups"):
        check({**found, "missing": lost}, max_distance=1e6)
    assert not missing({"embed": ["ok"]}, outputs)
    for other in ("detect", "groups"):
        with pytest.raises(ValueError, match=f"image_bytes or embed. .*: {other}"):
            compare(fake_export(0), {other: (larger, None)}, [path])
