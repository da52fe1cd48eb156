"""Where sets in COCO's layout keep their JSON file and their images."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from slotcon_tf.data.labelled.decoding import LabelError


def find_files(
    root: pathlib.Path, split: str
) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The JSON file of a split, and the folders that its images may be in.

    The file is `instances_SPLIT2017.json` or `instances_SPLIT.json` in `annotations/`,
    or `SPLIT/_annotations.coco.json`; or the one that the split, or the root itself,
    names. The images are in `SPLIT2017/`, `SPLIT/`, below `images/`, or beside the
    file; see `image_folder`.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "annotations").mkdir()
        >>> (root / "annotations" / "instances_val2017.json").touch()
        >>> about, folders = find_files(root, "val")
        >>> about.name, [folder.name for folder in folders[:2]]
        ('instances_val2017.json', ['val2017', 'val'])
    """
    names = (
        f"annotations/instances_{split}2017.json",
        f"annotations/instances_{split}.json",
        f"{split}/_annotations.coco.json",
    )
    if split.endswith(".json"):
        names = (split,)
    candidates = [root] if root.suffix == ".json" else [root / name for name in names]
    about = next((path for path in candidates if path.is_file()), None)
    if about is None:
        raise FileNotFoundError(
            f"{root} must hold {' or '.join(names)}. Received: no such file. Check "
            "`data_dir` and the split; a split may also be the name of a JSON file "
            "below it."
        )
    if root.suffix == ".json" or split.endswith(".json"):
        # What is called instances_SPLIT.json, in annotations/ or not.
        split = about.stem.removeprefix("instances_")
        root = about.parent
        root = root.parent if root.name == "annotations" else root
    names = [f"{split}2017", split, f"images/{split}2017", f"images/{split}", "images"]
    folders = [*(root / name for name in names), about.parent, root]
    return about, folders


def image_folder(
    folders: Sequence[pathlib.Path], names: Sequence[str], about: object
) -> pathlib.Path:
    """Of some folders the first that has one of the images.

    Where none has, the one folder in them that has all: the file may be of a part.

    Args:
        folders: That may be it.
        names: Of the images' files.
        about: The JSON file, for the error.

    Raises:
        FileNotFoundError: If none has any, or several have all.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "a.jpg").touch()
        >>> image_folder([folder / "val", folder], ["a.jpg"], "a.json") == folder
        True
    """
    existing = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    for some in (names[:1], names):  # the first is there mostly
        for folder in existing:
            if any((folder / name).is_file() for name in some):
                return folder
    inner = {p for folder in existing for p in folder.iterdir() if p.is_dir()}
    whole = [p for p in sorted(inner) if all((p / n).is_file() for n in names)]
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise FileNotFoundError(
            f"The images of {about} must be in one folder. Received: all of them in "
            f"{' and in '.join(map(str, whole))}. Call the file by its images' folder, "
            f"as {whole[0].name}.json, or give images names of their own."
        )
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise FileNotFoundError(
        f"The images of {about} must be in one of {looked}. Received: none of "
        f"{len(names)} there, such as {names[0]}. Check `data_dir`."
    )


def check_files(paths: Sequence[pathlib.Path], about: object) -> None:
    """Checks that images are files.

    Args:
        paths: Of the images.
        about: The JSON file that lists them.

    Raises:
        LabelError: If some are missing.

    Example:
        >>> check_files([pathlib.Path("x/a.jpg")], "a.json")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        slotcon_tf.data.labelled.decoding.LabelError: Every image of a.json must ...
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise LabelError(
            f"Every image of {about} must be there. Received: {len(missing)} of "
            f"{len(paths)} missing, the first {missing[0]}. Complete the data, or take "
            "its entry out of 'images' and 'annotations'."
        )
