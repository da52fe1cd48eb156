"""Pictures in memory, and as files."""

import io

import numpy as np
from PIL import Image


class Numbered:
    """A user's own source: every image has its number as colour."""

    num_images = 10

    def load(self, index):
        return np.full((40, 40, 3), 20 * int(index), np.uint8)


def pictures(count=3, seed=0):
    """Smooth colour images, uint8 (count, 60, 80, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    large = [Image.fromarray(p).resize((80, 60), Image.BICUBIC) for p in small]
    return np.stack([np.asarray(p) for p in large])


def encoded(pixels, kind="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def webp_frames(alpha, **options):
    """An animation whose frames are smaller than its canvas."""
    canvas = np.zeros((20, 30, 3 + alpha), np.uint8)
    canvas[..., 3:] = 255 * (1 - alpha)
    frames = [canvas.copy() for _ in range(3)]
    for i, frame in enumerate(frames):
        frame[4 + i : 12 + i, 6:16] = 255 - 40 * i
    first, *rest = [Image.fromarray(f) for f in frames]
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=rest, **options)
    return file.getvalue()
