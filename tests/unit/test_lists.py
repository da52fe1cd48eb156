"""Text lists in every form that people write them."""

import os

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.data import open_source
from slotcon_tf.data.listing import read_list
from slotcon_tf.data.lists import read_rows, split_columns

NAMES = ["im/img_0.jpg", "im/IMG 1.JPG", "im/a, b.png", "im/plain.jpeg"]


@pytest.fixture
def images(tmp_path):
    (tmp_path / "im").mkdir()
    for index, name in enumerate(NAMES):
        pixels = np.full((8, 8, 3), 50 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


FORMS = {
    "bare": "\n".join(NAMES),
    "blank": "\n".join(f"{n} {i}" for i, n in enumerate(NAMES)),
    "several blanks": "\n".join(f"{n}   {i}  1 2 3" for i, n in enumerate(NAMES)),
    "tab": "\n".join(f"{n}\t{i}" for i, n in enumerate(NAMES)),
    "comma": "\n".join(f"{n},{i}" for i, n in enumerate(NAMES)),
    "comma and blank": "\n".join(f"{n}, cat, {i}" for i, n in enumerate(NAMES)),
    "semicolon": "\n".join(f"{n};{i}" for i, n in enumerate(NAMES)),
    "quoted": "\n".join(f'"{n}",{i}' for i, n in enumerate(NAMES)),
    "quoted alone": "\n".join(f'"{n}"' for n in NAMES),
    "quoted, blank": "\n".join(f'"{n}" {i}' for i, n in enumerate(NAMES)),
    "quoted label": "\n".join(f'{n},"a ""big"", cat"' for n in NAMES[::3]),
    "header": "path,label\n" + "\n".join(f'"{n}",{i}' for i, n in enumerate(NAMES)),
    "header, no quotes": "filename,label\n"
    + "\n".join(f"{n},{i}" for i, n in enumerate(NAMES)),
    "header, second": "id,Image,x\n"
    + "\n".join(f"{i},{n},0.5" for i, n in enumerate(NAMES)),
    "header, tabs": "label\tfile_name\n"
    + "\n".join(f"{i}\t{n}" for i, n in enumerate(NAMES)),
    "header of one": "image\n" + "\n".join(NAMES),
    "header, blanks": "path label\n"
    + "\n".join(f"{n} {i}" for i, n in enumerate(NAMES)),
    "header, blanks, second": "label  path\n"
    + "\n".join(f"{i}   {n}" for i, n in enumerate(NAMES)),
    "header, blanks, between": "id image label\n"
    + "\n".join(f"{i} {n} cat" for i, n in enumerate(NAMES)),
    "header, blanks, quoted": "label path\n"
    + "\n".join(f'{i} "{n}"' for i, n in enumerate(NAMES)),
    "header, blanks, more columns": "path label\n"
    + "\n".join(f"{n} {i} 1 2" for i, n in enumerate(NAMES)),
    "header of ids": "image_id,label\n"
    + "\n".join(f"{n},{i}" for i, n in enumerate(NAMES)),
    "header, id and file": "image_id,file_name\n"
    + "\n".join(f"{i},{n}" for i, n in enumerate(NAMES)),
    "header, one known": "img_id,breed\n"
    + "\n".join(f'"{n}",{i}' for i, n in enumerate(NAMES)),
    "label first, tab": "\n".join(f"{i}\t{n}" for i, n in enumerate(NAMES)),
    "comments": "# a list\n\n   \n" + "\n\n".join(f"  {n}  " for n in NAMES) + "\n#end",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_same_files(images, form, encoding, ends):
    path = images / "list.txt"
    path.write_bytes(FORMS[form].replace("\n", ends).encode(encoding))
    names = NAMES[::3] if form == "quoted label" else NAMES
    assert read_list(path) == [str(images / name) for name in names]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a b.jpg a b.png", ["a b.jpg", "a b.png"]),
        ("a.jpg,a.png", ["a.jpg", "a.png"]),
        ("a,1.jpg , b,1.png", ["a,1.jpg", "b,1.png"]),
        ('"a.jpg", "b.png"', ["a.jpg", "b.png"]),
        ("a.jpg\tb c\t ", ["a.jpg", "b c", ""]),
        ("img.v2/a.JPG 3", ["img.v2/a.JPG", "3"]),
        ("no ending 3", ["no ending 3"]),
        ('"half.jpg 3', ['"half.jpg', "3"]),
        ('5" disk.jpg', ['5" disk.jpg']),
        ('x,"unclosed', ['x,"unclosed']),
        ("a.heic 1", ["a.heic", "1"]),
        ("a.jpg,", ["a.jpg", ""]),
    ],
)
def test_columns(text, cells):
    assert split_columns(text) == cells


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["img 1", "img 2"], ["img 1", "img 2"]),
        (["image", "file"], ["image", "file"]),
        (["name one", "name two"], ["name one", "name two"]),
        (["path label", "img_1 3"], ["img_1"]),
        (["label path", "cat img_1"], ["img_1"]),
        (["image_id,label", "img_1,3"], ["img_1"]),
    ],
)
def test_names_without_an_ending(tmp_path, lines, names):
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert read_list(tmp_path / "list.txt") == [str(tmp_path / n) for n in names]


def test_long_lines_and_odd_names(tmp_path):
    assert len(split_columns("a.jpg " * 50_000 + "b.jpg")) == 50_001
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb"):
        pass
    (tmp_path / "two\x0blines\x85.jpg").touch()
    (tmp_path / "photo.jpg copy.jpg").touch()
    text = b"caf\xe9.jpg 3\ntwo\x0blines\xc2\x85.jpg\nphoto.jpg copy.jpg\n"
    (tmp_path / "list.txt").write_bytes(text)
    assert all(map(os.path.exists, read_list(tmp_path / "list.txt")))


def test_rows_say_their_lines(tmp_path):
    (tmp_path / "l.csv").write_text("# x\nimage,mask\n\na.jpg,a.png\n")
    rows, header = read_rows(tmp_path / "l.csv")
    assert header == ["image", "mask"]
    assert rows == [(4, "a.jpg,a.png", ["a.jpg", "a.png"])]


def test_a_list_that_names_no_file_ends_at_once(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(f"gone/{i}.jpg 1" for i in range(3000)))
    with pytest.raises(FileNotFoundError, match="Line 1 was read as .*gone/0.jpg;"):
        open_source("list", path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    path.write_text("gone.jpg 1\na.jpg\nalso.jpg\n")
    assert open_source("list", path).num_images == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\0b", "must be a text file"),
        (b"\0" * 20, "begins with zeros"),
        (b"\xef\xbb\xbf\r\n# nothing", "empty list"),
        (b"path,label\n", "empty list"),
    ],
)
def test_what_is_no_list(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_source("list", path)


def test_a_list_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match="a named pipe, not a file"):
        open_source("list", tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match="a folder, not a file"):
        open_source("list", tmp_path)
    with open(tmp_path / "sparse.txt", "wb") as file:
        file.truncate(60 * 2**30)
    with pytest.raises(ValueError, match="bytes are more than"):
        open_source("list", tmp_path / "sparse.txt")


OTHER_HEADERS = {
    "blanks in a name": "image path , class\n",
    "no underscore": "ImagePath,Class\n",
    "an index of pandas": "Unnamed: 0,path\n",
    "unknown to us": "Photo,Breed\n",
    "unknown, quoted": '"Photo","Breed"\n',
    "unknown, semicolons": "Photo;Breed\n",
}


@pytest.mark.parametrize("name", OTHER_HEADERS)
def test_other_headers_are_no_images(images, name):
    header = OTHER_HEADERS[name]
    parting = ";" if ";" in header else ","
    rows = [f"{n}{parting}{i}" for i, n in enumerate(NAMES) if "," not in n]
    if name.startswith("an index"):
        rows = [parting.join(row.split(parting)[::-1]) for row in rows]
    (images / "l.csv").write_text(header + "\n".join(rows))
    names = [n for n in NAMES if "," not in n]
    assert read_list(images / "l.csv") == [str(images / n) for n in names]


def test_quotes_hold_ends_of_lines(images):
    text = f'path,text\n{NAMES[0]},"a\nb, ""c""\n\n"\n"{NAMES[2]}","x"\n5" d.jpg,y\n'
    (images / "l.csv").write_text(text)
    rows, _ = read_rows(images / "l.csv")
    assert [row.cells[0] for row in rows] == [NAMES[0], NAMES[2], '5" d.jpg']
    assert [row.number for row in rows] == [2, 6, 7]


def test_lists_that_were_put_together(images):
    parts = [f"{name}\n".encode("utf-8-sig") for name in NAMES]
    (images / "l.txt").write_bytes(b"\xef\xbb\xbf" + b"".join(parts))
    assert read_list(images / "l.txt") == [str(images / n) for n in NAMES]


@pytest.mark.parametrize(
    "text",
    [
        '["im/plain.jpeg"]',
        '[\n  "im/plain.jpeg",\n  "im/img_0.jpg"\n]\n',
        '{"path": "im/plain.jpeg"}\n{"path": "im/img_0.jpg"}\n',
    ],
)
def test_json_is_no_list(images, text):
    (images / "l.json").write_text(text)
    with pytest.raises(ValueError, match="which is JSON. Write its paths"):
        read_list(images / "l.json")
    (images / "[1] a.jpg").touch()
    (images / "l.txt").write_text("[1] a.jpg\n")
    assert read_list(images / "l.txt") == [str(images / "[1] a.jpg")]


def test_paths_of_windows_are_named(images):
    (images / "l.txt").write_text("im\\plain.jpeg\nim\\img_0.jpg\n")
    with pytest.raises(FileNotFoundError, match="parted by /"):
        read_list(images / "l.txt")


def test_files_of_this_machine_are_not_remote(images):
    """However their paths are written."""
    (images / "l.txt").write_text(f"file://{images}/{NAMES[0]} 3\n{NAMES[3]}\n")
    for path in (images / "l.txt", f"file://{images}/l.txt"):
        assert read_list(path) == [str(images / n) for n in NAMES[::3]]
    (images / "im" / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert open_source("folder", f"file://{images}").num_images == len(NAMES) + 1


def test_a_list_of_folders_is_refused(images):
    (images / "l.txt").write_text("im\n.\n")
    with pytest.raises(FileNotFoundError, match="name files. Received: 2 folders"):
        read_list(images / "l.txt")
