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
from slotcon_tf.data.identity import Identity, ImageSet
from slotcon_tf.data.known_files import UNKNOWN, files_of
from slotcon_tf.data.labelled import open_segmented
from slotcon_tf.data.records import shard_name, write_index, write_shard
from tests.support import labelled_case
from tests.support.photo_case import photos


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
    then = of_folder(photos(tmp_path / "a", 6))
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
    then = of_folder(photos(tmp_path / "a", 6))
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
    photos(tmp_path / "a" / "in", 6)
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
        photos(tmp_path / root / name / "n01", 6)
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
