"""Files of classes: every form that people write, and what is wrong with others."""

import numpy as np
import pytest

from slotcon_tf.data.labelled import VOID, LabelError, open_segmented
from slotcon_tf.data.labelled.class_file import read_class_names
from slotcon_tf.data.labelled.panoptic import read_panoptic
from tests.support import labelled_case as case

THREE = ("sky", "wall, inner", "tree")
READ = {
    "names": ("sky\nwall, inner\ntree\n", THREE, (0, 1, 2)),
    "ids": ("0 sky\n1 wall, inner\n2 tree", THREE, (0, 1, 2)),
    "tabs": ("0\tsky\t0.5\n1\twall, inner\t3\n2\ttree\t\n", THREE, (0, 1, 2)),
    "commas": ('0,sky,1,2,3\n1,"wall, inner",1,1,1\n2, tree\n', THREE, (0, 1, 2)),
    "semicolons": ("0;sky\n1;wall, inner\n2;tree\n", THREE, (0, 1, 2)),
    "colons": ("0: sky\n1: wall, inner\n2: tree\n", THREE, (0, 1, 2)),
    "quoted ids": ('"0","sky"\n"1","wall, inner"\n"2","tree"\n', THREE, (0, 1, 2)),
    "mark and CRLF": ("\ufeff0 sky\r\n1 wall, inner\r\n2 tree\r\n", THREE, (0, 1, 2)),
    "old Mac": ("sky\rwall, inner\rtree", THREE, (0, 1, 2)),
    "gaps": ("7 sky\n255 tree\n12 wall, inner\n", THREE, (7, 12, 255)),
    "comments": ("# id name\n\n0 sky\n  # 1\n1 wall, inner\n2 tree", THREE, (0, 1, 2)),
    "header": ("id,name\n0,sky\n4,tree\n", ("sky", "tree"), (0, 4)),
    "header of blanks": ("Index Class\n0 sky\n4 tree\n", ("sky", "tree"), (0, 4)),
    "void": ("0 void\n1 sky\n2 tree\n-1 ignore\n", ("sky", "tree"), (1, 2)),
    "void first": ("unlabeled\nsky\ntree\n", ("sky", "tree"), (1, 2)),
    "only ids": ("0\n128\n255\n", ("0", "128", "255"), (0, 128, 255)),
    "classes with numbers": ("class 1\nclass 2\n", ("class 1", "class 2"), (0, 1)),
    "other letters": ("0 дерево\n1 空\n", ("дерево", "空"), (0, 1)),
    "labelme": (
        "__ignore__\n_background_\nsky\ntree\n",
        ("_background_", "sky", "tree"),
        (0, 1, 2),
    ),
    "labelme, CRLF": (
        "\ufeff__ignore__\r\n_background_\r\nsky\r\n",
        ("_background_", "sky"),
        (0, 1),
    ),
    "labelme, no background": ("__ignore__\nsky\ntree\n", ("sky", "tree"), (0, 1)),
    "dots": ("1. sky\n2. wall, inner\n4. tree\n", THREE, (1, 2, 4)),
    "brackets": ("1) sky\n2) wall, inner\n4) tree\n", THREE, (1, 2, 4)),
    "equals": ("1=sky\n2 = wall, inner\n4=tree\n", THREE, (1, 2, 4)),
    "bars": ("1|sky\n2 | wall, inner\n4|tree\n", THREE, (1, 2, 4)),
    "dashes": ("1 - sky\n2 -> wall, inner\n4 - tree\n", THREE, (1, 2, 4)),
    "numbers that are no ids": (
        "3d model\n2.5d map\n",
        ("3d model", "2.5d map"),
        (0, 1),
    ),
    "types": ("Boeing 747\nAirbus 320\n", ("Boeing 747", "Airbus 320"), (0, 1)),
    "CVAT's": (
        "# label:color_rgb:parts:actions\nsky:0,0,0::\nwall, inner:128,0,0:a,b:\n"
        "tree:0,128,0::run\n",
        THREE,
        (0, 1, 2),
    ),
    "CVAT's header": ("label:color_rgb\ns:0,0,0::\nt:1,0,0::\n", "st", (0, 1)),
    "colours behind": ("sky 0 0 0\ntree 128 0 0\n", ("sky", "tree"), (0, 1)),
    "colours, commas": ("sky,0,0,0\ntree,128,0,0\n", ("sky", "tree"), (0, 1)),
    "labelme's class_names": ("_background_\nsky\n", ("_background_", "sky"), (0, 1)),
}


@pytest.mark.parametrize(("text", "names", "numbers"), READ.values(), ids=READ)
def test_classes_are_read(tmp_path, text, names, numbers):
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    table = read_class_names(path)
    assert sorted(table.names) == sorted(names)
    ids = np.array([numbers])
    found = [table.names[i] for i in table.classes(ids, "ids")[0]]
    order = dict(zip(numbers, names, strict=True))
    if text == READ["gaps"][0]:
        order = {7: "sky", 255: "tree", 12: "wall, inner"}
    assert found == [order[i] for i in numbers]
    if 255 not in numbers:
        assert table.classes(np.array([[VOID]]), "void")[0, 0] == VOID


REFUSED = {
    "empty": (b"", "between 1 and 254 classes"),
    "only void": (b"0 void\n", "between 1 and 254 classes"),
    "300": ("\n".join(f"{i} c{i}" for i in range(300)).encode(), "254 classes.*300"),
    "some numbered": (b"0 a\nb\n2 c\n", "before every name.*'b' in line 2"),
    "a name between": (b"a\n2 wheels\nb\n", "before every name.*'a' in line 1"),
    "id behind": (b"sky\t7\nroad\t3\n", "the id before the name.*sky"),
    "id behind, CSV": (b"sky,7\nroad,3\n", "the id before the name.*sky"),
    "id behind, blanks": (b"sky 0\nroad 2\ntree 1\n", "the id before the name.*sky"),
    "id behind, from 1": (b"sky 1\nroad 2\n", "the id before the name.*sky"),
    "id behind, colons": (b"sky: 7\nroad: 3\n", "the id before the name.*sky"),
    "id behind, equals": (b"sky=1\nroad = 0\n", "the id before the name.*sky"),
    "colours first": (b"64 128 64 sky\n0 0 192\troad\n", "ids, not colours.*64 128"),
    "fractions": (b"1.0 sky\n2.0 road\n", "whole ids.*'1.0 sky'"),
    "protobuf": (b"item {\n  id: 1\n  name: 'sky'\n}\n", "plain text.*item"),
    "header of names": (b"name,r,g,b\nsky,1,2,3\n", "begin with a class.*'name"),
    "header alone": (b"class\nsky\ntree\n", "begin with a class.*'class'"),
    "huge": (b"0 a\n99999999999 b\n", "ids below 2.31.*line 2"),
    "endless": (b"0 a\n" + b"9" * 5000 + b" b\n", "ids below 2.31.*line 2"),
    "other digits": ("0 a\n\u00b2 b\n".encode(), "before every name"),
    "half of UTF-16": ("0 a\n1 b\n".encode("utf-16")[:-1], "UTF-8"),
    "UTF-16 without a mark": ("0 a\n1 b\n".encode("utf-16-le"), "UTF-8"),
    "Latin-1": ("0 café\n1 b\n".encode("latin-1"), "UTF-8"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "a git LFS pointer.*git lfs pull",
    ),
    "zeros": (b"0 a\n1 b\0\n", "UTF-8.*zeros"),
    "JSON": (b'{"0": "a"}', "plain text"),
    "a PNG": (b"\x89PNG\r\n\x1a\n", "UTF-8"),
    "control": (b"0 a\n1 b\x07\n", "name every class.*line 2"),
    "ignore not first": (b"_background_\n__ignore__\na\n", "__ignore__ as id -1"),
    "background not first": (b"__ignore__\na\n_background_\n", "_background_ as id 0"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_with_a_file_is_named(tmp_path, data, words):
    path = tmp_path / "some classes.txt"
    path.write_bytes(data)
    with pytest.raises(LabelError, match=words) as error:
        read_class_names(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


TWICE = {
    "id": ("0 a\n1 b\n0 c\n", ("c", "b"), "id 0 as 'c' from here on"),
    "void id": ("0 a\n1 void\n1 c\n", ("a", "c"), "line 3: id 1 as 'c'"),
    "void at last": ("0 a\n1 b\n2 c\n1 void\n", ("a", "c"), "id 1 as 'void'"),
    "name": ("0 a\n1 b\n\n2 a\n", ("a", "b", "a (2)"), "of the name 'a'"),
    "name alone": ("a\nb\na\n", ("a", "b", "a (2)"), "two classes of the name 'a'"),
    "line": ("0 a\n1 b\n0 a\n", ("a", "b"), None),
}


@pytest.mark.parametrize(("text", "names", "words"), TWICE.values(), ids=TWICE)
def test_what_is_twice_is_kept_and_said(tmp_path, caplog, text, names, words):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    assert read_class_names(path).names == names
    assert words in caplog.text if words else not caplog.text


def test_windows_writes_utf_16(tmp_path):
    path = tmp_path / "classes.txt"
    for form in ("utf-16", "utf-16-le", "utf-16-be"):
        mark = "" if form == "utf-16" else "\ufeff"
        path.write_bytes(f"{mark}0 sky\r\n1 дерево\r\n".encode(form))
        assert read_class_names(path).names == ("sky", "дерево")


def test_files_that_no_memory_holds(tmp_path):
    root = case.folders(tmp_path)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"0 a\n1 b\n")
        file.truncate(60 * 2**30)
    for option in ("class_file", "image_list"):
        with pytest.raises(LabelError, match="sparse.*64424509440 bytes"):
            open_segmented("folders", root, "val", **{option: path})
    with pytest.raises(LabelError, match="sparse.*64424509440 bytes"):
        read_panoptic(path)


def test_no_file_of_classes(tmp_path):
    case.folders(tmp_path)
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match="no file"):
            open_segmented("folders", tmp_path, "val", class_file=path)


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt", "class_names.txt"])
def test_names_of_labelme_do_not_shift(tmp_path, name):
    case.folders(tmp_path, ids=[0, 1, 2, 255])
    (tmp_path / "classes.txt").unlink()
    first = "" if name == "class_names.txt" else "__ignore__\n"
    (tmp_path / name).write_text(f"{first}_background_\ngreen\nblue\n")
    data = open_segmented("folders", tmp_path, "val")
    assert data.class_names == ("_background_", "green", "blue")
    image, labels = data.load(0)
    for number, name in enumerate(data.class_names):
        color = image[labels == number].mean(axis=0)
        assert color.argmax() == number, name
    assert (labels == VOID).mean() == 0.25


def test_other_lists_of_labels_are_no_classes(tmp_path):
    case.folders(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "labels.txt").write_text("val/0.png 1\nval/1.png 0\n")
    names = open_segmented("folders", tmp_path, "val").class_names
    assert names == ("0", "1", "2", "3")
