"""A folder of files, and a model of them that needs no TensorFlow."""

import numpy as np

from slotcon_client.extraction import Images

OPTIONS = {
    "settings": {"version": 3},
    "batch_size": 4,
    "shard_images": 8,
    "convert": bytes,
}


class Sizes:
    """A model whose features are the lengths of files; they may be no images."""

    def __init__(self):
        self.asked = []

    def predict(self, files):
        self.asked.extend(files)
        sizes = np.array([len(file) for file in files], np.float32)
        slots = np.arange(3)
        found = np.array([len(file) % 4 for file in files])
        return {
            "pooled": np.stack([sizes, -sizes], 1),
            "vector": np.stack(
                [np.stack([sizes] * 3, 1), 0 * sizes[:, None] + slots], 2
            ),
            "valid": slots < found[:, None],
            "text": np.array([b"x" * len(file) for file in files], object),
            "ok": sizes > 0,
            "reason": np.where(sizes > 0, 0, 1),
        }


def files_in(folder, count=23):
    """`Images` of files of 1, 2, 3 ... bytes, the fifth one empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        data = b"" if number == 4 else bytes([number]) * (number + 1)
        (folder / f"{number:03d}.jpg").write_bytes(data)
    paths = sorted(str(path) for path in folder.iterdir())
    return Images(str(folder), tuple(paths))
