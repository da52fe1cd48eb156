"""Labelled images: every layout, and what is wrong with label maps."""

import re
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from slotcon_tf.data.labelled import (
    VOID,
    LabelError,
    open_classified,
    open_segmented,
)
from slotcon_tf.data.labelled.taxonomies import COCO_STUFF_27, coco_stuff27
from tests.support import labelled_case as case


def counts(labels):
    values, numbers = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


def test_folders_with_classes(tmp_path):
    data = open_segmented("folders", case.folders(tmp_path), "val")
    assert data.class_names == ("red", "green", "blue", "yellow")
    assert (len(data), data.num_classes) == (4, 4)
    for index, (image, labels) in enumerate(data):
        expected = case.scene([3, index])
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(labels, expected[1])
        assert labels.dtype == np.uint8


@pytest.mark.parametrize("labels", ["annotations", "labels", "masks"])
def test_folders_below_images(tmp_path, labels):
    for split in ("train", "val"):
        image, classes = case.scene(0)
        case.save(image, tmp_path / "images" / split / "a" / "x.png")
        case.save(classes, tmp_path / labels / split / "a" / "x.png")
    data = open_segmented("folders", tmp_path, "train")
    assert data.class_names == ("0", "1", "2", "3")  # found by looking
    np.testing.assert_array_equal(data.load(0)[1], case.scene(0)[1])


def test_lists(tmp_path):
    case.folders(tmp_path)
    (tmp_path / "some.txt").write_text(
        "# image label\nval/0.png valannot/0.png\n\nval/3.png\tvalannot/3.png\n"
    )
    for where, split in ((tmp_path, "some"), (tmp_path / "some.txt", "val")):
        data = open_segmented("list", where, split)
        assert len(data) == 2
        np.testing.assert_array_equal(data.load(1)[0], case.scene([3, 3])[0])
    (tmp_path / "bad.txt").write_text("val/0.png\n")
    with pytest.raises(LabelError, match="line 1 of .*bad.txt"):
        open_segmented("list", tmp_path, "bad")


def test_voc(tmp_path):
    data = open_segmented("voc", case.voc(tmp_path), "val")
    assert (len(data), data.num_classes, data.class_names[15]) == (2, 21, "person")
    labels = data.load(0)[1]
    assert counts(labels)[VOID] == 64 and set(counts(labels)) == {1, 2, 3, 4, VOID}
    augmented = open_segmented("voc", tmp_path / "VOCdevkit", "trainaug")
    assert len(augmented) == 3 + 2  # train, and SBD's
    assert augmented.load(4)[1].shape == (48, 64)


def test_lists_of_voc_by_other_editors(tmp_path):
    case.voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    names = path.read_text().split()
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    assert len(open_segmented("voc", tmp_path, "val")) == len(names)
    path.write_bytes("\r\n".join(names).encode("utf-16"))
    assert len(open_segmented("voc", tmp_path, "val")) == len(names)
    path.write_bytes(b"a\0b")
    with pytest.raises(LabelError, match="text in UTF-8.*val.txt"):
        open_segmented("voc", tmp_path, "val")


def test_cityscapes(tmp_path):
    data = open_segmented("cityscapes", case.cityscapes(tmp_path), "val")
    assert data.num_classes == 19
    image, labels = data.load(1)
    expected = np.array([0, 2, 10, VOID])[case.scene(1)[1]]  # trained ids
    np.testing.assert_array_equal(labels, expected)


def test_ade20k(tmp_path):
    data = open_segmented("ade20k", case.ade20k(tmp_path), "val")
    assert data.num_classes == 150
    expected = np.array([VOID, 0, 1, 2])[case.scene(0)[1]]  # id 0 is void
    np.testing.assert_array_equal(data.load(0)[1], expected)
    about = tmp_path / "ADEChallengeData2016" / "objectInfo150.txt"
    rows = [f"{i}\t0.1\t10\t1\tname{i}, other" for i in range(1, 151)]
    about.write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n")
    assert open_segmented("ade20k", tmp_path, "val").class_names[1] == "name2"
    about.write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows[1:]]) + "\n")
    with pytest.raises(LabelError, match="classes 1 to 150.*149 lines"):
        open_segmented("ade20k", tmp_path, "val")


def test_coco_panoptic(tmp_path):
    data = open_segmented("coco_panoptic", case.coco(tmp_path), "val")
    assert data.class_names[:2] == ("person", "car")
    expected = case.scene(0)[1].copy()
    expected[:2] = VOID
    np.testing.assert_array_equal(data.load(0)[1], expected)


@pytest.mark.parametrize("stuff", [True, False])
def test_coco_stuff27_from_either_annotation(tmp_path, stuff):
    data = open_segmented("coco_stuff27", case.coco(tmp_path, stuff), "val")
    assert data.class_names == COCO_STUFF_27 and data.num_classes == 27
    image, labels = data.load(0)
    assert image.shape == (320, 320, 3) and labels.shape == (320, 320)
    names = {data.class_names[i] for i in set(labels.ravel().tolist()) - {VOID}}
    assert names == {"person", "vehicle", "sky", "plant"}


def test_the_27_supercategories_cover_coco_stuff():
    table = coco_stuff27()
    classes = table.classes(np.arange(182)[None], "ids")[0]
    sizes = np.bincount(classes, minlength=27)
    assert len(sizes) == 27 and sizes.sum() == 182
    # Things with COCO's gaps in numbering, 91; stuff by the hierarchy, 91.
    things = dict(zip(COCO_STUFF_27[:12], sizes[:12].tolist(), strict=True))
    assert things["person"] == 1 and things["vehicle"] == 8 and sizes[:12].sum() == 91
    assert table.classes(np.array([[255]]), "void")[0, 0] == VOID
    named = {105: "sky", 94: "building", 178: "water", 123: "plant", 100: "floor"}
    for number, name in named.items():
        assert COCO_STUFF_27[classes[number]] == name


def test_scenes_and_slices():
    data = open_segmented("scenes", split="test[:5]")
    assert len(data) == 5 and data.class_names[0] == "sky"
    assert data.load(4)[1].shape == (144, 192)
    assert len(open_segmented("scenes", max_images=7)) == 7
    with pytest.raises(ValueError, match="split must be one of .*test.*'valid'"):
        open_segmented("scenes", split="valid")


class Labelled(tfds.core.GeneratorBasedBuilder):
    """A set of six images with a class and a label map each."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["a", "b"]),
                    "segmentation_mask": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png"
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(9)}

    def _generate_examples(self, first):
        for index in range(6):
            image, classes = case.scene(first + index)
            yield (
                index,
                {
                    "image": image,
                    "label": index % 2,
                    "segmentation_mask": classes[..., None] + np.uint8(1),
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Labelled(data_dir=folder).download_and_prepare()
    return folder


def test_tfds_label_maps(prepared):
    data = open_segmented("tfds:labelled", prepared, "test")
    assert data.class_names == ("1", "2", "3", "4")  # as in a trimap
    read = [data.load(i) for i in range(6)]
    again = data.load(2)  # in any order, once read
    np.testing.assert_array_equal(again[0], read[2][0])
    for image, labels in read:
        color = case.COLORS[labels].astype(int)
        assert np.abs(color - image).max() <= 15


def test_tfds_of_one_class_is_refused_at_once(prepared):
    with pytest.raises(LabelError, match="two classes at least.*one class only"):
        open_classified("tfds:labelled", prepared, "train", max_images=1)


def test_tfds_classes(prepared):
    data = open_classified("tfds:labelled", prepared, "test", crop_size=0)
    assert data.class_names == ("a", "b") and len(data) == 6
    assert sorted(label for _, label in data) == [0, 0, 0, 1, 1, 1]
    assert len(list(data)) == 6  # again
    few = open_classified("tfds:labelled", prepared, "train", max_images=4)
    assert [image.shape for image, _ in few] == [(224, 224, 3)] * 4


def test_class_folders(tmp_path):
    data = open_classified("class_folders", case.class_folders(tmp_path), "train")
    assert data.class_names == ("blue", "green", "red")
    labels = [label for _, label in data]
    assert labels == [0] * 8 + [1] * 8 + [2] * 8
    case.save(case.scene(0)[0], tmp_path / "train" / "loose.png")
    with pytest.raises(LabelError, match="loose.png"):
        open_classified("class_folders", tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="test must hold"):
        open_classified("class_folders", tmp_path, "test")


@pytest.mark.parametrize("dataset", ["folders", "list", "voc", "ade20k", "imagenet"])
def test_messages_name_flags_of_every_command(tmp_path, dataset):
    """By the library's names, which a command's flags have; not the split's."""
    opened = open_classified if dataset == "imagenet" else open_segmented
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        opened(dataset, tmp_path, "val")
    text = str(error.value)
    assert set(re.findall("`([a-z_]+)", text)) <= {"data_dir", "dataset"}
    assert "the split" in text and "`data_dir`" in text


class Maps(Labelled):
    """A set with label maps only."""

    def _info(self):
        features = dict(super()._info().features)
        del features["label"]
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _generate_examples(self, first):
        for key, example in super()._generate_examples(first):
            del example["label"]
            yield key, example


def test_label_maps_are_no_classes(tmp_path):
    Maps(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(LabelError, match="a 'label'.*are for groups") as error:
        open_classified("tfds:maps", tmp_path, "test")
    assert "--" not in str(error.value)


@pytest.mark.parametrize("opened", [open_segmented, open_classified])
def test_a_disk_that_is_away_for_a_moment_is_waited_for(tmp_path, opened):
    if opened is open_segmented:
        data = opened("folders", case.folders(tmp_path / "disk"), "val")
    else:
        data = opened("class_folders", case.class_folders(tmp_path / "disk"), "val")
    (tmp_path / "disk").rename(tmp_path / "away")
    back = threading.Timer(0.1, (tmp_path / "away").rename, [tmp_path / "disk"])
    back.start()
    assert len(list(data)) == len(data)
    back.join()
    # A file that is gone from its folder is not waited for.
    image = next((tmp_path / "disk" / "val").rglob("*.png"))
    image.unlink()
    start = time.monotonic()
    with pytest.raises(LabelError, match="readable.*No such file"):
        list(data)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("kind", ["folders", "class_folders"])
def test_images_of_few_levels_are_warned_of_once(tmp_path, caplog, kind):
    opened = open_segmented if kind == "folders" else open_classified
    root = getattr(case, kind)(tmp_path)
    assert len(list(opened(kind, root, "val"))) and "grey levels" not in caplog.text
    # 40 degrees in a thermal camera's 16 bits: one grey of 256.
    rng = np.random.default_rng(0)
    for path in (root / "val").rglob("*.png"):
        size = Image.open(path).size[::-1]
        case.save(rng.integers(29000, 29100, size, dtype=np.uint16), path)
    list(opened(kind, root, "val"))
    assert caplog.text.count("fewer than 16 grey levels") == 1
    assert f"{root / 'val'}" in caplog.text


def test_crop_moves_labels_with_the_image(tmp_path):
    case.folders(tmp_path)
    data = open_segmented("folders", tmp_path, "val", crop_size=24)
    image, labels = data.load(0)
    assert image.shape == (24, 24, 3) and labels.shape == (24, 24)
    color = case.COLORS[labels].astype(int)
    inside = np.ones((24, 24), bool)
    inside[11:13], inside[:, 11:13] = False, False  # the edges are blurred
    assert np.abs(color - image)[inside].max() <= 20


def test_max_images_and_lists_of_names(tmp_path):
    case.folders(tmp_path, splits=(("val", 6),))
    few = open_segmented("folders", tmp_path, "val", max_images=3)
    np.testing.assert_array_equal(few.load(1)[0], case.scene([3, 2])[0])
    names = tmp_path / "names.txt"
    names.write_text("4\n1\n77\n")
    some = open_segmented("folders", tmp_path, "val", image_list=names)
    assert len(some) == 2
    np.testing.assert_array_equal(some.load(1)[0], case.scene([3, 4])[0])


def write(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def classes_of(tmp_path, **labels):
    """A set of one image whose label map is made by the caller."""
    case.save(case.scene(0)[0], tmp_path / "val" / "x.png")
    write(tmp_path / "valannot" / labels.pop("name", "x.png"), **labels)
    return open_segmented("folders", tmp_path, "val")


CLASSES = case.scene(0)[1]


def test_other_size_is_an_error(tmp_path):
    small = Image.fromarray(CLASSES[::2, ::2])
    with pytest.raises(LabelError, match="x.png, 32x24, for an image of 64x48"):
        classes_of(tmp_path, image=small).load(0)


def test_colours_are_an_error(tmp_path):
    with pytest.raises(LabelError, match="one channel .* mode RGB"):
        classes_of(tmp_path, image=Image.fromarray(case.COLORS[CLASSES]))


def test_no_label_map_is_an_error(tmp_path):
    with pytest.raises(LabelError, match="1 of 1 pairs without label map.*x.png"):
        classes_of(tmp_path, image=Image.fromarray(CLASSES), name="y.png")


def test_unknown_ids_are_an_error(tmp_path):
    case.folders(tmp_path, ids=[0, 1, 2, 77])
    data = open_segmented("folders", tmp_path, "val")
    with pytest.raises(LabelError, match="77 in 25.0% of its pixels"):
        data.load(0)
    # Where no file names classes, every id is one, but for those called void.
    (tmp_path / "classes.txt").unlink()
    found = open_segmented("folders", tmp_path, "val", void_ids=[77])
    assert found.class_names == ("0", "1", "2")
    assert counts(found.load(0)[1])[VOID] == 48 * 64 // 4


def test_broken_files_are_an_error(tmp_path):
    data = classes_of(tmp_path, image=Image.fromarray(CLASSES))
    (tmp_path / "valannot" / "x.png").write_bytes(b"no picture")
    with pytest.raises(LabelError, match="readable image.*x.png"):
        data.load(0)
    (tmp_path / "val" / "x.png").write_bytes(b"no picture")
    with pytest.raises(LabelError, match="must be readable.*x.png"):
        data.load(0)


def test_16_bit_ids_and_jpeg(tmp_path):
    wide = Image.fromarray(CLASSES.astype(np.uint16) * 1000)
    data = classes_of(tmp_path, image=wide)
    assert data.class_names == ("0", "1000", "2000", "3000")
    np.testing.assert_array_equal(data.load(0)[1], CLASSES)


@pytest.mark.parametrize("layout", ["voc", "cityscapes", "ade20k", "coco_panoptic"])
def test_missing_parts_are_named(tmp_path, layout):
    with pytest.raises(FileNotFoundError, match="`data_dir`"):
        open_segmented(layout, tmp_path, "val")


def test_unknown_sets():
    with pytest.raises(ValueError, match="Did you mean 'cityscapes'"):
        open_segmented("cityscape", "x")
    with pytest.raises(ValueError, match="Set `data_dir`"):
        open_segmented("voc")
    with pytest.raises(ValueError, match="images with a class each"):
        open_classified("voc", "x")


def test_the_developers_street_photographs(shared_folder):
    root = shared_folder / "data" / "camvid"
    data = open_segmented("list", root, "val")
    assert data.class_names == open_segmented("folders", root, "val").class_names
    assert len(data) == 101 and data.class_names[8] == "Car"
    seen = np.zeros(256, np.int64)
    for _, labels in data:
        seen += np.bincount(labels.ravel(), minlength=256)
    share = 100 * seen / seen.sum()
    # classes.txt tells the shares of val.
    np.testing.assert_allclose(share[[0, 8, VOID]], [9.18, 1.75, 1.70], atol=0.006)
    assert tf.io.gfile.exists(str(root / "classes.txt"))


def test_names_to_keep_may_be_those_of_files(tmp_path):
    case.folders(tmp_path)
    names = tmp_path / "keep.txt"
    names.write_text("val/1.png\n3.PNG\n0\n")
    kept = open_segmented("folders", tmp_path, "val", image_list=names)
    assert [kept.load(i)[0].tobytes() for i in range(3)] == [
        case.scene([3, i])[0].tobytes() for i in (0, 1, 3)
    ]
    names.write_text("cat dog")
    with pytest.raises(LabelError, match="image_list.*keep.txt, none of whose 2 names"):
        open_segmented("folders", tmp_path, "val", image_list=names)


def test_a_list_may_say_where_its_files_are(tmp_path):
    case.folders(tmp_path)
    here = f"file://{tmp_path}"
    (tmp_path / "val.txt").write_text(f"{here}/val/0.png {here}/valannot/0.png\n")
    found = open_segmented("list", tmp_path, "val")
    np.testing.assert_array_equal(found.load(0)[1], case.scene([3, 0])[1])
