"""Images for the examples where you name no folder: procedural scenes, drawn here."""

import pathlib

import numpy as np
from PIL import Image

from slotcon_tf.data.drawing import CATEGORIES, THINGS, draw_scene

__all__ = ["CATEGORIES", "THINGS", "labelled", "photographs"]


def photographs(folder: str | pathlib.Path, count: int) -> pathlib.Path:
    """Draws scenes as JPEG files, unless the folder has them.

    Args:
        folder: For the files.
        count: How many.
    """
    folder = pathlib.Path(folder)
    for index in range(count):
        _save(folder / f"{index:05}.jpg", lambda i=index: _scene(0, i)[0])
    return folder


def labelled(folder: str | pathlib.Path, train: int, val: int) -> pathlib.Path:
    """Draws scenes with label maps: `train/`, `trainannot/`, `val/`, `valannot/`.

    Args:
        folder: For these four, and classes.txt.
        train, val: How many.
    """
    folder = pathlib.Path(folder)
    for split, count in {"train": train, "val": val}.items():
        for index in range(count):
            seed = 1 + (split == "val")
            name = f"{index:05}.png"
            _save(folder / split / name, lambda s=seed, i=index: _scene(s, i)[0])
            labels = folder / f"{split}annot" / name
            _save(labels, lambda s=seed, i=index: _scene(s, i)[1])
    names = "\n".join(f"{number} {name}" for number, name in enumerate(CATEGORIES))
    (folder / "classes.txt").write_text(f"{names}\n")
    return folder


def _scene(seed, index):
    return draw_scene(np.random.default_rng([seed, index]))


def _save(path, draw):
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(draw())).save(path, quality=92)
