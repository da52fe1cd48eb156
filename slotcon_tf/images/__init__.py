"""The one image contract, for training, evaluation, export and interop.

A file's way from bytes to a normalised tensor:

1. `open_image` reads the header: of the formats that are opened at all, none too large.
2. `decode_image` gives 8-bit RGB, whole. A JPEG of three channels without EXIF is
   decoded and no more. Of everything else the first frame is taken, palettes and inks
   become RGB, transparency is dropped, the EXIF orientation is applied
   (`slotcon_tf.images.orientation`), and more than 8 bits are read in a range, by one
   rule (`as_rgb`, `slotcon_tf.images.pixels`) or in the data set's `pixel_range`.
   What cannot be used is a `BadImage`, whose text is the reason.
3. `square` cuts or stretches it to a square as evaluation does; training cuts its own
   views instead (`slotcon_tf.data.crops`). `square_in_graph` does so within a graph.
4. `normalize`, or `ImageStatistics.normalize`, takes grey levels 0 .. 255 to mean 0 and
   deviation 1 per channel, by what the model was trained with: `statistics_of(model)`.

The graph that is served does the same to the bytes that it is sent, in TensorFlow's
operations (`slotcon_tf.serving.decoding`); a test compares the pixels of every format.

    data = open("photo.jpg", "rb").read()
    statistics = statistics_of(model)
    rgb = decode_image(data, pixel_range=statistics.pixel_range)  # uint8 (h, w, 3)
    batch = statistics.normalize(square(rgb, 224)[None].astype("float32"))

Nothing here needs more than TensorFlow, NumPy and Pillow.
"""

from slotcon_tf.images.decoding import decode_image, open_image
from slotcon_tf.images.pixels import BadImage, as_rgb
from slotcon_tf.images.squares import square, square_in_graph
from slotcon_tf.images.statistics import (
    IMAGENET,
    ImageStatistics,
    normalize,
    statistics_of,
)

__all__ = [
    "IMAGENET",
    "BadImage",
    "ImageStatistics",
    "as_rgb",
    "decode_image",
    "normalize",
    "open_image",
    "square",
    "square_in_graph",
    "statistics_of",
]
