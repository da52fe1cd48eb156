"""Where sets in COCO's layout keep their files."""

import pytest

from slotcon_tf.data.labelled import LabelError
from slotcon_tf.data.objects.coco_files import check_files, find_files, image_folder


def touched(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("about", "root", "split", "first"),
    [
        ("annotations/instances_val2017.json", "", "val", "val2017"),
        ("annotations/instances_val.json", "", "val", "val2017"),
        ("val/_annotations.coco.json", "", "val", "val2017"),
        (
            "annotations/instances_mine.json",
            "",
            "annotations/instances_mine.json",
            None,
        ),
        ("annotations/mine.json", "annotations/mine.json", "val", None),
    ],
)
def test_the_file_and_the_folders_of_a_split(about, root, split, first, tmp_path):
    touched(tmp_path, about)
    found, folders = find_files(tmp_path / root, split)
    assert found == tmp_path / about
    assert folders[0] == tmp_path / (first or "mine2017")
    assert folders[-2:] == [found.parent, tmp_path]


def test_without_a_file_all_names_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json or .*coco"):
        find_files(tmp_path, "val")


def test_the_folder_that_has_the_images(tmp_path):
    touched(tmp_path, "val/b.jpg", "other/a.jpg", "other/b.jpg")
    named = [tmp_path / "val2017", tmp_path / "val"]
    # The first image is in none of them; another one is.
    assert image_folder(named, ["a.jpg", "b.jpg"], "a.json") == tmp_path / "val"
    # A part of a set: the one folder inside that has all.
    assert image_folder([tmp_path], ["a.jpg", "b.jpg"], "a.json").name == "other"
    with pytest.raises(FileNotFoundError, match="none of 1 there, such as c.jpg"):
        image_folder(named, ["c.jpg"], "a.json")
    touched(tmp_path, "copy/a.jpg", "copy/b.jpg")
    with pytest.raises(FileNotFoundError, match=r"copy and .*other.*copy\.json"):
        image_folder([tmp_path], ["a.jpg", "b.jpg"], "a.json")


def test_missing_images_are_counted(tmp_path):
    touched(tmp_path, "a.jpg")
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    check_files(paths[:1], "a.json")
    with pytest.raises(LabelError, match=r"2 of 3 missing, the first .*b\.jpg"):
        check_files(paths, "a.json")
