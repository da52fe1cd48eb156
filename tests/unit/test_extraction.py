"""Tables of features: whole, of one version, of what the files hold; in every form."""

import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

from export.remote import REMOTE
from slotcon_client import shards
from slotcon_client.errors import ExtractionError, RequestError
from slotcon_client.extraction import extract, shard_path
from slotcon_client.lock import held
from slotcon_client.merging import NotMerged, merge
from slotcon_client.progress import Progress
from slotcon_client.table_files import open_table
from slotcon_client.tables import Column, Table, write
from tests.support.command import ENVIRONMENT, ROOT, until
from tests.support.extraction_case import OPTIONS, Sizes, files_in

FORMS = (".npz", ".parquet", "")


@pytest.fixture
def images(tmp_path):
    return files_in(tmp_path / "images")


def read(path, tmp_path):
    """Any form as a dict of arrays."""
    merge([path], tmp_path / "read.npz")
    with np.load(tmp_path / "read.npz") as table:
        return dict(table)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same(form, images, tmp_path):
    output = tmp_path / f"features{form}"
    failed = extract(Sizes().predict, images, output, **OPTIONS)
    assert failed == {"004.jpg": "empty"} and failed.unanswered == []
    found = read(output, tmp_path)
    assert found["paths"].tolist() == images.names
    expected = [0 if i == 4 else i + 1 for i in range(23)]
    np.testing.assert_array_equal(found["pooled"][:, 0], expected)
    assert found["pooled"].dtype == np.float32
    assert found["ok"].tolist() == [i != 4 for i in range(23)]
    assert found["reason"][4] == "empty" and found["text"][6] == "x" * 7
    assert not (tmp_path / f"features{form}.partial").exists()
    listed = (tmp_path / f"features{form}.failed.txt").read_text()
    assert listed == "004.jpg\tempty\n"


def test_shards_are_mapped_and_described(images, tmp_path):
    output = tmp_path / "features"
    extract(Sizes().predict, images, output, **OPTIONS)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["finished"] and manifest["settings"]["version"] == 3
    assert manifest["columns"]["pooled"] == {"dtype": "float32", "shape": [2]}
    assert [shard["images"] for shard in manifest["shards"]] == [8, 8, 7]
    assert [shard["failed"] for shard in manifest["shards"]] == [1, 0, 0]
    parts = list(shards.features_in(output, ["paths", "pooled"]))
    assert all(isinstance(part["pooled"], np.memmap) for part in parts)
    assert np.concatenate([part["paths"] for part in parts]).tolist() == images.names
    shards.write_manifest(str(output), {}, [], finished=False)
    with pytest.raises(ExtractionError, match="must be finished"):
        next(shards.features_in(output))


@pytest.mark.parametrize("form", FORMS)
def test_a_row_per_object(form, images, tmp_path):
    output = tmp_path / f"objects{form}"
    extract(Sizes().predict, images, output, **OPTIONS, rows="objects")
    found = read(output, tmp_path)
    sizes = [0 if i == 4 else i + 1 for i in range(23)]
    each = [i for i, size in enumerate(sizes) for _ in range(size % 4)]
    assert found["image"].tolist() == each
    assert found["paths"].tolist() == [images.names[i] for i in each]
    np.testing.assert_array_equal(found["vector"][:, 0], [sizes[i] for i in each])
    assert "pooled" not in found and "valid" not in found  # which are of images
    about = np.load(tmp_path / "read.images.npz")
    assert about["objects"].tolist() == [size % 4 for size in sizes]
    assert about["reason"][4] == "empty" and not about["ok"][4]
    if form == ".parquet":
        assert pq.read_table(output).schema.field("vector").metadata[b"shape"] == b"2"


def test_objects_need_a_signature_that_finds_some(images, tmp_path):
    def predict(files):
        return {"pooled": np.ones((len(files), 2))}

    with pytest.raises(ExtractionError, match="must have valid.*signature=objects"):
        extract(predict, images, tmp_path / "a.npz", **OPTIONS, rows="objects")


def broken_off(images, output, after=3):
    """An extraction that dies; returns what it had sent."""
    model = Sizes()

    def predict(files):
        if len(model.asked) >= 4 * after:
            raise ExtractionError("The model is gone.")
        return model.predict(files)

    with pytest.raises(ExtractionError, match="is gone"):
        extract(predict, images, output, **OPTIONS, concurrency=1)
    return model.asked


@pytest.mark.parametrize("form", [".npz", ""])
def test_it_goes_on_and_looks_at_the_files_again(form, images, tmp_path, capsys):
    output = tmp_path / f"features{form}"
    before = broken_off(images, output)
    assert len(before) == 12
    changed = tmp_path / "images" / "001.jpg"
    changed.write_bytes(b"another")
    os.utime(changed, (0, 0))
    model = Sizes()
    extract(model.predict, images, output, **OPTIONS)
    found = read(output, tmp_path)
    assert found["pooled"][1, 0] == 7
    assert len(model.asked) == (15 if form else 19)  # a batch, or a shard, and the rest
    told = capsys.readouterr().err
    assert ("1 batches were made anew: their images have changed" in told) == bool(form)


@pytest.mark.parametrize("form", [".npz", ""])
def test_versions_and_settings_never_mix(form, images, tmp_path):
    output = tmp_path / f"features{form}"
    broken_off(images, output)
    other = {**OPTIONS, "settings": {"version": 4}}
    with pytest.raises(ExtractionError, match="other version: 3 there, 4 now") as error:
        extract(Sizes().predict, images, output, **other)
    assert "\n" not in str(error.value)
    model = Sizes()
    extract(model.predict, images, output, **OPTIONS)
    assert len(model.asked) == 11
    if not form:  # where what is finished stays, too
        again = Sizes()
        extract(again.predict, images, output, **OPTIONS)
        assert not again.asked
        with pytest.raises(ExtractionError, match="other version"):
            extract(Sizes().predict, images, output, **other)


def test_a_part_of_other_settings_is_made_anew(images, tmp_path):
    """As two machines may leave it in a store without locks."""
    output = tmp_path / "a.npz"
    broken_off(images, output)
    with np.load(tmp_path / "a.npz.partial" / "000000000.npz") as part:
        rows = {**part, "_settings": np.array("others")}
    np.savez(tmp_path / "a.npz.partial" / "000000000.npz", **rows)
    model = Sizes()
    extract(model.predict, images, output, **OPTIONS)
    assert len(model.asked) == 11 + 4


@pytest.mark.parametrize("form", [".npz", ""])
def test_what_was_not_answered_is_asked_again(form, images, tmp_path):
    def refusing(files):
        if any(len(file) == 7 for file in files):
            raise RequestError("INTERNAL: busy")
        return Sizes().predict(files)

    output = tmp_path / f"features{form}"
    failed = extract(refusing, images, output, **OPTIONS)
    assert failed.unanswered == ["006.jpg"]
    assert failed["006.jpg"] == "refused: INTERNAL: busy"
    with pytest.raises(NotMerged, match="1 images were not answered"):
        merge([output], tmp_path / "all.npz")
    model = Sizes()
    assert extract(model.predict, images, output, **OPTIONS) == {"004.jpg": "empty"}
    assert len(model.asked) == 4  # their batch, not all of a shard
    assert read(output, tmp_path)["pooled"][6, 0] == 7


WRONG = {
    "not a number": ({"pooled": np.nan}, "wrong answer: pooled is not finite"),
    "infinite": ({"pooled": np.inf}, "wrong answer: pooled is not finite"),
    "bad for no reason": ({"ok": False}, "wrong answer: ok false with reason 0"),
    "good for a reason": ({"reason": 4}, "wrong answer: ok true with reason 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_no_row_of_features(name, images, tmp_path):
    changes, reason = WRONG[name]

    def predict(files):
        found = Sizes().predict(files)
        for row in [i for i, file in enumerate(files) if len(file) == 7]:
            for output, value in changes.items():
                found[output][row] = value
        return found

    failed = extract(predict, images, tmp_path / "a.npz", **OPTIONS)
    assert failed.unanswered == ["006.jpg"] and failed["006.jpg"] == reason
    table = np.load(tmp_path / "a.npz")
    assert not table["ok"][6] and not table["pooled"][6].any()
    assert table["text"][6] == ""


FORMLESS = {
    "dtype": lambda found: found | {"pooled": found["pooled"].astype(np.float64)},
    "shape": lambda found: found | {"pooled": found["pooled"][:, :1]},
    "rows": lambda found: found | {"pooled": found["pooled"][:2]},
    "scalar": lambda found: found | {"pooled": np.float32(1)},
    "missing": lambda found: {n: v for n, v in found.items() if n != "text"},
}


@pytest.mark.parametrize("name", FORMLESS)
def test_answers_of_another_form_end_it(name, images, tmp_path):
    def predict(files):
        found = Sizes().predict(files)
        return FORMLESS[name](found) if any(len(file) == 7 for file in files) else found

    with pytest.raises(ExtractionError, match="must"):
        extract(predict, images, tmp_path / "a.npz", **OPTIONS, concurrency=1)
    assert not (tmp_path / "a.npz").exists()


def test_an_output_is_one_clients(images, tmp_path):
    output = tmp_path / "a.npz"
    with held(f"{output}.partial", output):
        with pytest.raises(ExtractionError, match="one client's alone") as error:
            extract(Sizes().predict, images, output, **OPTIONS)
        assert f"process {os.getpid()}" in str(error.value)
    extract(Sizes().predict, images, output, **OPTIONS)
    assert sorted(path.name for path in tmp_path.glob("a.*")) == [
        "a.npz",
        "a.npz.failed.txt",
    ]


SLOW = """
import sys, time, tests.support.extraction_case as case
from slotcon_client.extraction import Images, extract
model, paths = case.Sizes(), tuple(sys.argv[3:])
def predict(files):
    if len(model.asked) >= 8:
        time.sleep(600)  # a server that has stalled
    return model.predict(files)
extract(predict, Images(sys.argv[1], paths), sys.argv[2], settings={}, batch_size=4,
    convert=bytes, concurrency=1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_at_once_and_it_goes_on(number, images, tmp_path):
    output = tmp_path / "a.npz"
    command = [sys.executable, "-c", SLOW, images.root, output, *images.paths]
    quiet = {"cwd": ROOT, "env": ENVIRONMENT, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        folder = tmp_path / "a.npz.partial"
        until(lambda: len(list(folder.glob("0*.npz"))) == 2, "two parts", process)
        options = {**OPTIONS, "settings": {}}
        with pytest.raises(ExtractionError, match=f"process {process.pid}, since"):
            extract(Sizes().predict, images, output, **options)
        process.send_signal(number)
        assert process.wait(5) != 0
    assert not output.exists()
    model = Sizes()
    extract(model.predict, images, output, **options)
    assert len(model.asked) == 15


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", ["images", "objects"])
def test_parts_are_merged_into_what_one_run_writes(form, rows, images, tmp_path):
    options = {**OPTIONS, "rows": rows}
    extract(Sizes().predict, images, tmp_path / f"whole{form}", **options)
    parts = []
    for number in range(3):
        parts.append(shard_path(str(tmp_path / f"part{form}"), number, 3))
        part = images.shard(number, 3)
        extract(Sizes().predict, part, parts[-1], **options)
    for into in FORMS:
        merge(parts[::-1], tmp_path / f"merged{into}")
        found = read(tmp_path / f"merged{into}", tmp_path)
        expected = read(tmp_path / f"whole{form}", tmp_path)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype
    made = open_table(tmp_path / "merged.npz").about
    once = open_table(tmp_path / "whole.npz").about if form == ".npz" else made
    assert made == once and "shard" not in made["images"]
    with pytest.raises(ExtractionError, match="shard_images"):  # it is of other parts
        extract(Sizes().predict, images, tmp_path / "merged", **options)


def test_every_gap_and_difference_is_told_in_a_line(images, tmp_path):
    def part(number, count, name, images=images, version=3):
        options = {**OPTIONS, "settings": {"version": version}}
        path = str(tmp_path / name)
        extract(Sizes().predict, images.shard(number, count), path, **options)
        return path

    first, second = part(0, 4, "a.npz"), part(2, 4, "b.npz", version=4)
    again, whole = part(0, 4, "c.npz"), str(tmp_path / "d.npz")
    fewer = part(1, 4, "e.npz", files_in(tmp_path / "fewer", 9))
    extract(Sizes().predict, images, whole, **OPTIONS)
    with pytest.raises(NotMerged) as error:
        merge([first, second, again, whole, fewer], tmp_path / "all.npz")
    assert error.value.lines == [
        f"{second}: version 4, and 3 in {first}",
        f"{fewer}: other images (9 listed, and 23) than {first}",
        f"{whole}: no part of a whole",
        f"{again}: part 0/4 as {first} is",
        "part 3/4 is missing",
    ]
    assert not (tmp_path / "all.npz").exists()
    with pytest.raises(NotMerged, match="parts of 4 and 5"):
        merge([first, part(1, 5, "f.npz")], tmp_path / "all.npz")
    np.savez(tmp_path / "old.npz", pooled=np.ones((2, 2)))
    with pytest.raises(NotMerged, match="does not tell what it was extracted from"):
        merge([tmp_path / "old.npz"], tmp_path / "all.npz")
    (tmp_path / "text.npz").write_text("no table")
    with pytest.raises(ExtractionError, match="must be a table of features"):
        merge([tmp_path / "text.npz"], tmp_path / "all.npz")


def test_more_parts_than_images(images, tmp_path):
    few = files_in(tmp_path / "few", 2)
    paths = [str(tmp_path / f"{number}.parquet") for number in range(3)]
    for number, path in enumerate(paths):
        extract(Sizes().predict, few.shard(number, 3), path, **OPTIONS)
    assert merge(paths, tmp_path / "all.npz") == 2


@pytest.mark.parametrize("form", FORMS)
def test_remote_stores(form, images, tmp_path):
    folder = f"ram://{tmp_path.name}-{form}"
    output = f"{folder}/features{form}"
    calls = []

    def dying(files):
        calls.append(files)
        if len(calls) > 3:
            raise ExtractionError("The model is gone.")
        return Sizes().predict(files)

    options = {**OPTIONS, "files": REMOTE, "concurrency": 1}
    with pytest.raises(ExtractionError, match="is gone"):
        extract(dying, images, output, **options)
    model = Sizes()
    extract(model.predict, images, output, **options)
    assert len(model.asked) == 11
    known = [f"features{form}", f"features{form}.failed.txt"]
    assert REMOTE.names(folder) == known
    merge([output], tmp_path / "all.npz", lambda path: REMOTE)
    assert np.load(tmp_path / "all.npz")["paths"].tolist() == images.names


@pytest.mark.parametrize("form", [".npz", ".parquet"])
def test_a_table_may_be_larger_than_the_memory(form, tmp_path):
    piece = {"x": np.ones((1000, 1024), np.float32)}  # 4 MB

    def pieces(names):
        yield from [piece] * 24

    table = Table({"x": Column.of(piece["x"])}, 24_000, pieces)
    tracemalloc.start()
    write(tmp_path / f"a{form}", table)
    opened = open_table(tmp_path / f"a{form}")
    assert sum(len(rows["x"]) for rows in opened.all_pieces()) == 24_000
    assert tracemalloc.get_traced_memory()[1] < 80e6  # of 98 MB
    tracemalloc.stop()


def test_progress_tells_speed_and_time_left(monkeypatch):
    log = io.StringIO()
    with Progress(100, log) as progress:
        progress.update(50, asked=False)
        progress._marks[0] = (progress._start - 10.0, 0)
        progress.update(20)
        assert progress.text().startswith("70 / 100 images, 2.0 images/s, 1")
        assert progress.text().endswith(" s left")
        progress.update(30)
    assert log.getvalue().count("\n") == 1
