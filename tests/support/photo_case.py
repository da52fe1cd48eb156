"""A folder of small images, each of its own size."""

import numpy as np
from PIL import Image


def photos(folder, count):
    """Makes the folder with 0.png, 1.png ...; returns it."""
    folder.mkdir(parents=True)
    for number in range(count):
        grey = np.full((40, 40 + number, 3), 20 * number, np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    return folder
