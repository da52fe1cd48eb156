"""What dies, rots or meets another while features are written leaves no wrong table."""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import types

import numpy as np
import pytest

from slotcon_client import extraction, lock, shards, workers
from slotcon_client.errors import ExtractionError, MissingPackage
from slotcon_client.extraction import extract
from slotcon_client.files import LOCAL, Files
from slotcon_client.lock import held
from slotcon_client.merging import NotMerged, merge
from slotcon_client.parts import Parts, check_made_by
from slotcon_client.table_files import open_table
from slotcon_client.tables import write
from tests.support.extraction_case import OPTIONS, Sizes, files_in


@pytest.fixture
def images(tmp_path):
    return files_in(tmp_path / "images")


def pooled(path):
    with np.load(path) as table:
        return table["pooled"][:, 0].tolist()


def asked_again(images, output, **options):
    """How many images another call asks for."""
    model = Sizes()
    extract(model.predict, images, output, **{**OPTIONS, **options})
    return len(model.asked)


def change(path):
    """Bytes of the same number."""
    data = path.read_bytes()
    path.write_bytes(bytes(byte ^ 1 for byte in data))


def damage(path, piece):
    """Flips a bit where some bytes lie."""
    data = bytearray(path.read_bytes())
    data[data.index(piece)] ^= 1
    path.write_bytes(data)


def test_a_thread_of_an_ended_run_writes_into_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_LEAVING_SECONDS", 0.01)
    images, before = files_in(tmp_path / "images", 8), set(threading.enumerate())
    stalled, left = threading.Event(), []

    def answer(version, files):
        return {"pooled": np.full((len(files), 1), version, np.float32)}

    def old(files):
        if files[0] == b"\0":
            stalled.wait(60)
            return answer(3, files)
        raise ExtractionError("The model is gone.")

    def new(files):
        if files[0] != b"\0":
            stalled.set()
            for thread in left:
                thread.join(60)
        return answer(4, files)

    options = {**OPTIONS, "concurrency": 2}
    with pytest.raises(ExtractionError, match="is gone"):
        extract(old, images, tmp_path / "a.npz", **options)
    left += set(threading.enumerate()) - before
    assert left
    shutil.rmtree(tmp_path / "a.npz.partial")
    options |= {"settings": {"version": 4}, "concurrency": 1}
    extract(new, images, tmp_path / "a.npz", **options)
    assert pooled(tmp_path / "a.npz") == [4] * 8


def test_a_part_that_became_anothers_is_not_read(tmp_path):
    parts = Parts(str(tmp_path), {"version": 3}, LOCAL)
    other = Parts(str(tmp_path), {"version": 3}, LOCAL)
    other.digest = "of another version"
    parts.write(0, {"ok": np.array([True])})
    assert list(parts.columns(0)) == ["ok"]
    other.write(0, {"ok": np.array([True])})
    for read in (parts.columns, lambda start: list(parts.each([start]))):
        with pytest.raises(ExtractionError, match="Received: one of others"):
            read(0)


class Dying(Files):
    """A process that is killed before it writes a file."""

    def __init__(self, ending):
        self.ending = ending

    def write(self, path, write):
        if path.endswith(self.ending):
            raise KeyboardInterrupt
        super().write(path, write)


def test_killed_while_a_shard_is_made_anew(images, tmp_path):
    output = tmp_path / "features"
    extract(Sizes().predict, images, output, **OPTIONS)
    (tmp_path / "images" / "001.jpg").write_bytes(b"")  # whose row becomes zeros
    with pytest.raises(KeyboardInterrupt):
        asked_again(images, output, files=Dying("00000.ok.npy"))
    with pytest.raises(ExtractionError, match="must be finished"):
        next(shards.features_in(output))
    with pytest.raises(NotMerged, match="not finished"):
        merge([output], tmp_path / "all.npz")
    assert not (output / "00000.json").exists()
    assert asked_again(images, output) == 0  # its batches are kept
    assert [rows["ok"][1] for rows in shards.features_in(output)][0] == np.False_


def test_killed_while_tables_are_merged_again(images, tmp_path):
    output = str(tmp_path / "merged")
    extract(Sizes().predict, images, tmp_path / "all.npz", **OPTIONS)
    merge([tmp_path / "all.npz"], output)
    with pytest.raises(KeyboardInterrupt):
        merge([tmp_path / "all.npz"], output, lambda path: Dying("00000.ok.npy"))
    with pytest.raises(ExtractionError, match="must be finished"):
        next(shards.features_in(output))


@pytest.mark.parametrize("rows", ["images", "objects"])
@pytest.mark.parametrize("cut", [None, 8, 0, 200])
def test_an_array_that_is_lost_or_cut_short(cut, rows, images, tmp_path):
    output = tmp_path / "features"
    extract(Sizes().predict, images, output, **OPTIONS, rows=rows)
    column = "vector" if rows == "objects" else "pooled"
    path = output / f"00001.{column}.npy"
    data = path.read_bytes()
    path.unlink() if cut is None else path.write_bytes(data[: -cut or 1])
    with pytest.raises(ExtractionError, match=rf"00001\.{column}.* must be an array"):
        list(shards.features_in(output, [column]))
    with pytest.raises(ExtractionError, match=rf"00001\.{column}.* must be an array"):
        merge([output], tmp_path / "all.npz")
    assert asked_again(images, output, rows=rows) == 8
    assert path.read_bytes() == data
    assert len(list(shards.features_in(output, [column]))) == 3
    with pytest.raises(ExtractionError, match="`columns` must be of those in"):
        next(shards.features_in(output, ["poled"]))


def test_merge_counts(images, tmp_path):
    def shorter(path, kept):
        table = open_table(path)
        rows = next(table.pieces(list(table.columns)))
        rows = {name: values[:kept] for name, values in rows.items()}
        few = dataclasses.replace(
            table, rows=kept, pieces=lambda names: iter([{n: rows[n] for n in names}])
        )
        write(path, few)

    first, second = (str(tmp_path / name) for name in ("a.npz", "b.npz"))
    extract(Sizes().predict, images.shard(0, 2), first, **OPTIONS)
    extract(Sizes().predict, images.shard(1, 2), second, **OPTIONS)
    shorter(second, 5)
    with pytest.raises(NotMerged) as error:
        merge([first, second], tmp_path / "all.npz")
    assert error.value.lines == [f"{second}: it has 5 of 12 images"]
    extract(Sizes().predict, images, first, **OPTIONS, rows="objects")
    shorter(first, 7)
    with pytest.raises(NotMerged, match=r"it has 7 of \d+ objects"):
        merge([first], tmp_path / "all.npz")


@pytest.mark.parametrize("as_method", [False, True])
def test_a_worker_of_another_version_is_refused(as_method):
    settings = {"version": 4, "outputs": ("pooled",)}
    found = (lambda: settings) if as_method else settings
    model = types.SimpleNamespace(settings=found)
    check_made_by(model, {**settings, "rows_per": "image"})
    check_made_by(Sizes(), {"version": 3})  # which tells nothing
    with pytest.raises(ExtractionError, match="other version: 3 there, 4 now"):
        check_made_by(model, {**settings, "version": 3})


@pytest.mark.parametrize("name", ["features.npz", f"{'x' * 60}features.npz"])
def test_what_is_swept_is_no_others(name, images, tmp_path):
    def halves(*names):
        for written in names:
            with pytest.raises(KeyboardInterrupt):
                LOCAL.write(str(tmp_path / written), killed)

    def killed(file):
        aside.append(os.readlink(f"/proc/self/fd/{file.fileno()}"))
        raise KeyboardInterrupt

    aside = []
    own = [name, f"{name}.failed.txt", f"{name.removesuffix('.npz')}.images.npz"]
    halves(*own, f"train-{name}", f"y{name}")
    for path in aside:
        LOCAL.write_text(path, "half")
    extract(Sizes().predict, images, tmp_path / name, **OPTIONS)
    there = [os.path.exists(path) for path in aside]
    assert there == [False] * 3 + [True] * 2


def test_halves_in_a_folder_are_swept(images, tmp_path):
    (tmp_path / "features").mkdir()
    half = tmp_path / "features" / ".writing-1-1-00000.pooled.npy"
    half.touch()
    extract(Sizes().predict, images, tmp_path / "features", **OPTIONS)
    assert not half.exists()


@pytest.mark.parametrize("form", [".npz", ""])
@pytest.mark.parametrize("convert", [bytes, lambda data: data + bytes(4)])
def test_images_too_large_are_looked_at_not_sent_again(convert, form, images, tmp_path):
    output, options = tmp_path / f"a{form}", {"convert": convert}
    limit = {"max_image_bytes": 19}
    failed = extract(Sizes().predict, images, output, **{**OPTIONS, **options, **limit})
    large = 4 if convert is bytes else 8  # which makes them longer
    assert sum("`max_image_mb`" in reason for reason in failed.values()) == large
    if not form:  # of a file nothing is kept
        assert asked_again(images, output, **options, **limit) == 0
        # Shards of 8, 8 and 7: those without one that is too large stay as they are.
        assert asked_again(images, output, **options) == (7 if large == 4 else 15)
        assert sum("max" in r for r in shards_reasons(output)) == 0


def shards_reasons(output):
    for rows in shards.features_in(output, ["reason"]):
        yield from rows["reason"].tolist()


def test_a_holder_removes_its_own_lock_alone(tmp_path):
    folder = tmp_path / "a.partial"
    with held(folder, "a"):
        pass
    assert not folder.exists()
    with held(folder, "a"):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "lock").write_text("{}")  # another's, meanwhile
    assert (folder / "lock").exists()


def test_where_disks_have_no_locks_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", lambda file: None)
    holder = {"host": "elsewhere", "process": 7, "since": "today"}
    (tmp_path / "lock").write_text(json.dumps(holder))
    with pytest.raises(ExtractionError) as error, held(tmp_path, "a"):
        pass
    assert str(error.value).endswith(f"if it has ended, delete {tmp_path / 'lock'}.")


@pytest.mark.parametrize("how", ["rot", "empty"])
def test_a_part_that_rots_is_made_anew(how, images, tmp_path):
    def dying(files):
        if len(files) < 4:
            raise ExtractionError("The model is gone.")
        return Sizes().predict(files)

    output, options = tmp_path / "a.npz", {**OPTIONS, "concurrency": 1}
    with pytest.raises(ExtractionError, match="is gone"):
        extract(dying, images, output, **options)
    path = tmp_path / "a.npz.partial" / "000000008.npz"
    parts = Parts.__new__(Parts)
    parts.folder, parts.files = str(path.parent), LOCAL
    with np.load(path) as part:
        parts.digest = str(part["_settings"])
        piece = part["pooled"].tobytes()
    damage(path, piece) if how == "rot" else path.write_bytes(b"")
    with pytest.raises(ExtractionError, match="no whole file"):
        list(parts.each([8]))
    assert asked_again(images, output) == 3 + 4
    damage(output, np.load(output)["pooled"].tobytes())
    with pytest.raises(ExtractionError, match="Bad CRC-32"):
        merge([output], tmp_path / "all.npz")


def test_what_an_earlier_release_began_is_refused(images, tmp_path):
    folder = tmp_path / "a.npz.partial"
    folder.mkdir()
    (folder / "settings.json").write_text('{"images": "", "version": ""}')
    with pytest.raises(ExtractionError, match="an earlier release began"):
        extract(Sizes().predict, images, tmp_path / "a.npz", **OPTIONS)


def test_names_are_hashed_once(images, tmp_path, monkeypatch):
    hashed = []

    def sha256(data):
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr(extraction, "hashlib", types.SimpleNamespace(sha256=sha256))
    extract(Sizes().predict, images, tmp_path / "features", **OPTIONS)
    assert len(hashed) == 1


def test_an_image_that_needs_a_package_fails_alone(images, tmp_path):
    def convert(data):
        if len(data) == 7:
            raise MissingPackage("The package PIL must be installed for this.")
        return data

    output = tmp_path / "a.npz"
    failed = extract(Sizes().predict, images, output, **{**OPTIONS, "convert": convert})
    assert failed.unanswered == ["006.jpg"]
    assert failed["006.jpg"] == "not sent: The package PIL must be installed for this."
    assert asked_again(images, output) == 4 and pooled(output)[6] == 7
