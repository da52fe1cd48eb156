"""What images are is told by names, sizes and samples, wherever they lie."""

import json
import os
import pathlib
import shutil
import types
import unicodedata

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.data import open_images, open_source
from slotcon_tf.data.builders import builder_identity
from slotcon_tf.data.identity import UNKNOWN, Identity, ImageSet, files_of
from slotcon_tf.data.labelled import open_segmented
from slotcon_tf.data.records import shard_name, write_index, write_shard
from slotcon_tf.runs.checkpoints import CheckpointError
from slotcon_tf.runs.kept_data import ChangedData, RunData
from slotcon_tf.runs.workdir import WorkdirError
from tests.support import labelled_case
from tests.support.checkpoint_case import CONFIG, save_at, store


def photos(folder, count=6):
    folder.mkdir(parents=True)
    for number in range(count):
        grey = np.full((4 + number, 5, 3), 10 * number, np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    return folder


def of(source):
    return Identity(images=source.identity())


def of_folder(folder):
    return of(open_source("folder", folder))


def fewer(folder):
    (folder / "1.png").unlink()
    (folder / "4.png").unlink()


def more(folder):
    shutil.copy(folder / "1.png", folder / "11.png")


def renamed(folder):
    (folder / "3.png").rename(folder / "7.png")


def other_size(folder):
    shutil.copy(folder / "5.png", folder / "0.png")


def other_contents(folder):
    data = bytearray((folder / "2.png").read_bytes())
    data[-1] ^= 1
    (folder / "2.png").write_bytes(data)


CHANGES = {
    fewer: ["2 files fewer (1.png, 4.png)"],
    more: ["1 file more (11.png)"],
    renamed: ["1 file fewer (3.png)", "1 file more (7.png)"],
    other_size: ["1 file of another size (0.png)"],
    other_contents: ["1 file of 6 looked into of other contents (2.png)"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_told_with_counts_and_names(change, tmp_path):
    then = of_folder(photos(tmp_path / "a"))
    change(tmp_path / "a")
    now = of_folder(tmp_path / "a")
    assert now.digest != then.digest
    # As a checkpoint keeps them.
    summary, lists = (json.loads(json.dumps(x())) for x in (then.summary, then.lists))
    assert now.differences(summary, lists) == CHANGES[change]
    # With the names lost it still differs, by its digest and its counts.
    (said,) = now.differences(summary)
    assert said.startswith(("other files (6 of ", "1 file of 6 looked into")), said


def test_copied_and_touched_data_is_the_same(tmp_path):
    then = of_folder(photos(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    for path in (tmp_path / "b" / "c").iterdir():
        os.utime(path, (1, 1))
    (tmp_path / "link").symlink_to(tmp_path / "b")
    places = [tmp_path / "b" / "c", f"{tmp_path}/b/c/", tmp_path / "link" / "c"]
    assert {of_folder(place).digest for place in places} == {then.digest}
    # Names written by another system: é is one letter, or two.
    for name, place in (("NFC", "one"), ("NFD", "two")):
        (tmp_path / place).mkdir()
        shutil.copy(
            tmp_path / "a" / "0.png",
            tmp_path / place / unicodedata.normalize(name, "é.png"),
        )
    assert of_folder(tmp_path / "one").digest == of_folder(tmp_path / "two").digest


def test_the_order_counts_and_absolute_lists_may_move(tmp_path):
    photos(tmp_path / "a" / "in")
    names = [f"in/{number}.png" for number in range(6)]

    def listed(folder, names):
        (folder / "list.txt").write_text("\n".join(names))
        return of(open_source("list", folder / "list.txt"))

    then = listed(tmp_path / "a", names)
    now = listed(tmp_path / "a", [*names[:2], *names[:1:-1]])
    assert now.differences(then.summary(), then.lists()) == [
        "the same files in another order (from in/5.png on)"
    ]
    # A file that is gone is named, whatever the list says.
    (tmp_path / "a" / "in" / "4.png").rename(tmp_path / "4.png")
    now = listed(tmp_path / "a", names)
    assert now.differences(then.summary(), then.lists()) == ["1 file fewer (in/4.png)"]
    (tmp_path / "4.png").rename(tmp_path / "a" / "in" / "4.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    whole = [
        listed(tmp_path / place, [str(tmp_path / place / name) for name in names])
        for place in "ab"
    ]
    assert whole[0].digest == whole[1].digest == then.digest
    elsewhere = [
        of(open_images([str(tmp_path / place / name) for name in names]))
        for place in "ab"
    ]
    assert elsewhere[0].digest == elsewhere[1].digest


def test_files_elsewhere_give_names_only():
    """No call per file: not even a file system for them is asked for."""
    paths = [f"gs://bucket/a/{number}.jpg" for number in range(9)]
    found = files_of(paths, "gs://bucket/a")
    assert found["names"][0] == "0.jpg" and set(found["sizes"]) == {UNKNOWN}
    assert not any(found["samples"])
    remote = Identity(images=ImageSet(9, {}, **found))
    local = Identity(images=ImageSet(9, {}, found["names"], range(9), ["a"] * 9))
    assert remote.digest != local.digest  # but what is not known does not differ
    assert remote.differences(local.summary(), local.lists()) == []
    fewer = Identity(images=ImageSet(8, {}, **files_of(paths[1:], "gs://bucket/a")))
    assert fewer.differences(local.summary(), local.lists()) == ["1 file fewer (0.jpg)"]


def test_every_kind_of_source_has_an_identity(tmp_path):
    fakes = [of(open_source("fake")).digest for _ in range(2)]
    assert fakes[0] == fakes[1]
    for root, name in (("coco", "train2017"), ("imagenet", "train")):
        photos(tmp_path / root / name / "n01")
        found = open_source(root, tmp_path / root).identity()
        assert found.names[0] == f"{name}/n01/0.png", found
    shards = []
    for place in ("r1", "r2"):
        (tmp_path / place).mkdir()
        names = ["a.png"] if place == "r1" else ["a.png", "b.png"]
        images = [
            (n, (tmp_path / "coco/train2017/n01/0.png").read_bytes()) for n in names
        ]
        shard = write_shard(tmp_path / place / shard_name(0, 1), images)
        write_index(tmp_path / place, [shard])
        shards.append(of(open_source("records", tmp_path / place)))
    shutil.copytree(tmp_path / "r1", tmp_path / "r3")
    copied = of(open_source("records", tmp_path / "r3"))
    assert copied.digest == shards[0].digest != shards[1].digest
    differ = shards[1].differences(shards[0].summary(), shards[0].lists())
    assert "1 file of another size (images-00000-of-00001.tfrecord)" in differ

    class Mine:
        num_images = 3

        def load(self, number):
            return np.full((4, 4, 3), number, np.uint8)

        def identity(self):
            return ImageSet(3, {"version": 2})

    own = [Mine(), Mine()]
    own[1].identity = lambda: ImageSet(3, {"version": 3})
    first, second = (of(open_source_of(each)) for each in own)
    assert second.differences(first.summary()) == ["version=2 (now 3)"]
    arrays = of(open_images(np.zeros((4, 8, 8, 3), np.uint8)))
    fewer = of(open_images(np.zeros((3, 8, 8, 3), np.uint8)))
    assert fewer.differences(arrays.summary()) == ["4 images (now 3)"]


def open_source_of(source):
    from slotcon_tf.data.sources import source_of

    return source_of(source)


def test_a_set_of_tensorflow_datasets(tmp_path):
    """By a builder's own words: its version, its split, and its shards."""
    (tmp_path / "one").write_bytes(b"records")

    def builder(version, drawn=False):
        part = types.SimpleNamespace(filename=str(tmp_path / "one"))
        split = types.SimpleNamespace(num_examples=9, file_instructions=[part])
        info = types.SimpleNamespace(full_name=f"x/{version}", splits={"train": split})
        return types.SimpleNamespace(info=info, data_dir=tmp_path, drawn=drawn)

    found = builder_identity(builder(1), "train")
    assert (found.num_images, found.names, found.sizes) == (9, ["one"], [7])
    other = Identity(images=builder_identity(builder(2), "train"))
    assert other.differences(Identity(images=found).summary()) == [
        "source=tfds x/1 (now tfds x/2)"
    ]
    assert not builder_identity(builder(1, drawn=True), "train").names


def test_labels_and_classes_are_part_of_labelled_sets(tmp_path):
    root = labelled_case.folders(tmp_path / "a")

    def opened(root):
        train, val = (open_segmented("folders", root, s) for s in ("train", "val"))
        return Identity(train=train.identity(), val=val.identity())

    then = opened(root)
    shutil.copytree(root, tmp_path / "b")
    assert opened(tmp_path / "b").digest == then.digest
    about = (then.summary(), then.lists())
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(root / "valannot" / "2.png")
    assert opened(root).differences(*about) == [
        "val: 1 file of another size (valannot/2.png)"
    ]
    names = (tmp_path / "b" / "classes.txt").read_text()
    (tmp_path / "b" / "classes.txt").write_text(names.replace("blue", "sky"))
    assert opened(tmp_path / "b").differences(*about)[0] == (
        "train: the classes red, green, blue ... (now red, green, sky ...)"
    )
    (tmp_path / "b" / "classes.txt").write_text(names.replace("9\tVoid", "8\tVoid"))
    assert opened(tmp_path / "b").differences(*about)[0] == (
        "train: other ids, or segments, of the classes"
    )


def test_panoptic_segments_are_labels(tmp_path):
    labelled_case.coco(tmp_path, stuff=False)
    then = Identity(val=open_segmented("coco_panoptic", tmp_path, "val").identity())
    path = next((tmp_path / "annotations").glob("panoptic_val*.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, indent=3))  # the same, written otherwise
    again = open_segmented("coco_panoptic", tmp_path, "val").identity()
    assert Identity(val=again).digest == then.digest
    ids = [category["id"] for category in content["categories"]]
    segment = content["annotations"][0]["segments_info"][0]
    segment["category_id"] = next(i for i in ids if i != segment["category_id"])
    path.write_text(json.dumps(content))
    now = Identity(val=open_segmented("coco_panoptic", tmp_path, "val").identity())
    assert now.differences(then.summary(), then.lists()) == [
        "other ids, or segments, of the classes"
    ]


def data_of(folder, steps=10, **more):
    return RunData(of_folder(folder), steps_per_epoch=2, steps=steps, **more)


def test_a_checkpoint_keeps_its_data_and_refuses_other(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "run" / "checkpoints"
    save_at(store(kept, data=data_of(folder), keep=1), 2, 4)
    (names,) = kept.glob("data-*.json.gz")  # once, not in every checkpoint
    fewer(folder)
    with pytest.raises(ChangedData) as caught:
        store(kept, data=data_of(folder)).restore()
    said = str(caught.value)
    assert "2 files fewer (1.png, 4.png). Bring" in said and "\n" not in said
    assert "`allow_changed_data`" in said
    # Copied alone: the names are gone, and it is told all the same.
    names.unlink()
    with pytest.raises(ChangedData, match=r"other files \(6 of .* then, 4 of"):
        store(kept, data=data_of(folder)).restore()
    names.write_bytes(b"damaged")
    with pytest.raises(ChangedData, match=r"other files \(6 of"):
        store(kept, data=data_of(folder)).restore()
    allowed = CONFIG.replace(allow_changed_data=True)
    store_of_now = store(kept, config=allowed, data=data_of(folder))
    assert store_of_now.restore() == 4 and "The data has changed since" in caplog.text
    # What is allowed is allowed once: later checkpoints are of the data of now.
    save_at(store_of_now, 6)
    flags = (store_of_now.latest() / CONFIG.flagfile).read_text()
    assert "--noallow_changed_data" in flags
    assert store(kept, data=data_of(folder)).restore() == 6


def test_older_checkpoints_go_on_with_a_line(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "run" / "checkpoints"
    was = CONFIG.replace(dataset="folder", data_dir=str(folder))
    save_at(store(kept, config=was), 4)
    caplog.set_level("INFO")
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link", os.path.relpath(folder)):
        config = was.replace(data_dir=str(place))
        later = store(kept, config=config, data=data_of(folder))
        assert later.restore() == 4
    assert "kept no identity of its data" in caplog.text
    save_at(later, 6)
    assert (later.latest() / "data.json").exists()
    # Of data that lies elsewhere nothing is known.
    shutil.rmtree(later.latest())
    copied = shutil.copytree(folder, tmp_path / "copied")
    config = was.replace(data_dir=str(copied))
    with pytest.raises(WorkdirError, match=r"data_dir=.*photos \(now .*copied\)"):
        store(kept, config=config, data=data_of(copied)).restore()
    # Nor does data that has grown reopen a run: its model's steps say how much it was.
    (kept.parent / "model.json").write_text('{"total_steps": 10}')
    grown = data_of(folder, steps=20, total_steps=20)
    with pytest.raises(WorkdirError, match="for 10 steps in all .now 20"):
        store(kept, config=was, data=grown).restore()


def test_what_a_checkpoint_says_of_its_data_may_be_damaged(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "checkpoints"
    saved = store(kept, data=data_of(folder))
    save_at(saved, 2, 4, 6)
    for path, text in zip(saved.paths(), ["[", '{"digest": 1}'], strict=False):
        (path / "data.json").write_text(text)
    with pytest.raises(CheckpointError, match="2, all damaged"):
        store(kept, data=data_of(folder)).restore()


def test_an_ended_run_stays_ended(tmp_path):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "checkpoints"
    save_at(store(kept, data=data_of(folder, steps=10)), 10)
    same = store(kept, data=data_of(folder))
    assert same.restore() == 10 and not same.ended
    more(folder)
    with pytest.raises(ChangedData, match=r"has ended.* set init_from=runs/pretrain"):
        store(kept, data=data_of(folder, steps=20)).restore()
    allowed = CONFIG.replace(allow_changed_data=True)
    after = store(kept, config=allowed, data=data_of(folder, steps=20))
    assert after.restore() == 10 and after.ended


def test_checkpoints_kept_for_good_survive_data_of_another_size(tmp_path):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "checkpoints"
    saved = store(kept, data=data_of(folder), keep=1, keep_every_epochs=2)
    save_at(saved, 2, 4, 6)
    more(folder)
    options = {"keep": 1, "keep_every_epochs": 2, "steps_per_epoch": 3}
    data = RunData(of_folder(folder), steps_per_epoch=3, steps=15)
    config = CONFIG.replace(allow_changed_data=True)
    later = store(kept, config=config, data=data, **options)
    assert later.restore() == 6
    save_at(later, 7, 12, 13)
    assert [p.name[-2:] for p in later.paths()] == ["13", "12", "06", "04"]


def test_names_need_no_file_of_their_own(tmp_path):
    """Names that no text has: bytes of an old disk, and ends of lines."""
    folder = photos(tmp_path / "photos", 1)
    odd = os.fsdecode(b"caf\xe9\n.png")
    shutil.copy(folder / "0.png", folder / odd)
    then = of_folder(folder)
    lists = json.loads(json.dumps(then.lists()))
    (pathlib.Path(folder) / odd).unlink()
    (said,) = of_folder(folder).differences(then.summary(), lists)
    assert said == "1 file fewer (caf\\udce9\\n.png)"
