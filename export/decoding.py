"""Bytes of image files to pixels, inside the graph that is served.

One bad image must not fail the others of its batch, and a graph cannot catch errors. A
tf.data pipeline inside it can: each image is a data set of one element, which errors
leave empty, with a row of zeros behind it.
"""

import tensorflow as tf

OK, EMPTY, UNKNOWN, TOO_LARGE, DAMAGED = range(5)
REASONS = ("ok", "empty", "no known image format", "too many pixels", "damaged")
EVALUATION_CROP = 224 / 256  # of the shorter edge, as ImageNet's evaluation has it
FILL = 32  # edge of what stands for a bad image of unknown size
_HEAD = 32  # bytes that the sizes of all formats but JPEG lie in
_EXIF_SEARCHED = 4096  # bytes; the marker comes first


def decode_batch(data, size, *, crop, max_pixels):
    """Decodes and resizes files of one batch, each for itself.

    JPEG, PNG, WebP, BMP and GIF (first frame) by their content, turned upright by a
    JPEG's EXIF orientation, transparency dropped, as in training.

    Args:
        data: string (N,), N > 0.
        size: Edge of the square result in pixels; 0 keeps an image's own size, and N
            must be 1 then.
        crop: Whether the shorter edge is resized to `size` / 0.875 and the centre cut
            out, as in evaluation, or the whole image is stretched to the square.
        max_pixels: Larger images are not decoded.

    Returns:
        Tuple of float32 (N, size, size, 3) of whole grey levels, zeros where not ok,
        and int32 (N,), an index of `REASONS`.
    """
    edge = size or None

    def one(content):
        reason = _judge(content, max_pixels)
        good = tf.equal(reason, OK)
        image = tf.cond(
            good,
            lambda: fit(_decode(content), size, crop),
            lambda: _nothing(size),
        )
        return tf.ensure_shape(image, (edge, edge, 3)), reason

    def alone(content):
        found = tf.data.Dataset.from_tensors(content).map(one).ignore_errors()
        failed = tf.data.Dataset.from_tensors((_nothing(size), tf.constant(DAMAGED)))
        return found.concatenate(failed).take(1)

    count = tf.size(data, tf.int64)
    images = (
        tf.data.Dataset.from_tensor_slices(data)
        .interleave(
            alone,
            cycle_length=8,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(tf.maximum(count, 1))
    )
    images, reasons = images.get_single_element()
    return images, tf.ensure_shape(reasons, (None,))


def _nothing(size):
    return tf.zeros((size or FILL, size or FILL, 3))


def _judge(content, max_pixels):
    """Whether an image is to be decoded: OK, or the reason why not."""
    head = tf.io.decode_raw(content, tf.uint8)[:_HEAD]
    head = tf.cast(tf.pad(head, [[0, _HEAD - tf.size(head)]]), tf.int32)

    def number(start, count, big=False):
        places = range(start, start + count)
        weights = reversed(range(count)) if big else range(count)
        return tf.add_n(
            [head[i] * 256**w for i, w in zip(places, weights, strict=True)]
        )

    def is_(start, magic):
        return tf.reduce_all(head[start : start + len(magic)] == list(magic))

    webp, kind = is_(0, b"RIFF") & is_(8, b"WEBP"), head[15]
    cases = [
        (is_(0, b"\xff\xd8\xff"), lambda: _jpeg_size(content)),
        (is_(0, b"\x89PNG"), lambda: (number(20, 4, True), number(16, 4, True))),
        (is_(0, b"GIF8"), lambda: (number(8, 2), number(6, 2))),
        (is_(0, b"BM"), lambda: (tf.abs(number(22, 4)), number(18, 4))),
        (
            webp & (kind == ord("X")),
            lambda: (number(27, 3) + 1, number(24, 3) + 1),
        ),
        (
            webp & (kind == ord("L")),
            lambda: (
                (number(21, 4) // 2**14) % 2**14 + 1,
                number(21, 4) % 2**14 + 1,
            ),
        ),
        (webp, lambda: (number(28, 2) % 2**14, number(26, 2) % 2**14)),
    ]
    height, width = tf.case(cases, default=lambda: (0, 0))
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    known = tf.reduce_any(tf.stack([condition for condition, _ in cases]))
    reason = tf.where(pixels > max_pixels, TOO_LARGE, OK)
    reason = tf.where((height < 1) | (width < 1), DAMAGED, reason)
    reason = tf.where(known, reason, UNKNOWN)
    return tf.where(tf.strings.length(content) == 0, EMPTY, reason)


def _jpeg_size(content):
    shape = tf.io.extract_jpeg_shape(content)
    return shape[0], shape[1]


def _decode(content):
    """uint8 (height, width, 3)."""
    jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    return tf.cond(
        jpeg,
        lambda: _upright(
            tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"),
            _orientation(content),
        ),
        lambda: _three_channels(
            tf.io.decode_image(content, channels=0, expand_animations=False)
        ),
    )


def _three_channels(image):
    grey = tf.shape(image)[-1] < 3
    return tf.cond(
        grey, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3]
    )


def _orientation(content):
    """The EXIF orientation of a JPEG, 1 to 8; 1 where it has none, or a broken one."""
    data = tf.io.decode_raw(content, tf.uint8)[:_EXIF_SEARCHED]
    data = tf.cast(tf.pad(data, [[0, 64]]), tf.int32)
    last = tf.size(data) - 16
    starts = tf.ones([last], tf.bool)
    for offset, byte in enumerate(b"Exif\0\0"):
        starts &= data[offset : last + offset] == byte
    found = tf.reduce_any(starts)
    tiff = tf.argmax(tf.cast(starts, tf.int32), output_type=tf.int32) + 6
    little = data[tiff] == ord("I")

    def short(place):
        place = tf.clip_by_value(place, 0, last)
        pair = data[place : place + 2]
        return tf.where(little, pair[0] + 256 * pair[1], pair[1] + 256 * pair[0])

    # The directory's offset has four bytes; a sane one needs two.
    directory = tiff + short(tf.where(little, tiff + 4, tiff + 6))
    entries = tf.range(tf.minimum(short(directory), 64))
    places = directory + 2 + 12 * entries
    tags = tf.map_fn(short, places)
    values = tf.map_fn(lambda place: short(place + 8), places)
    value = tf.reduce_max(tf.where(tags == 0x0112, values, 0))
    return tf.where(found & (value >= 1) & (value <= 8), value, 1)


def _upright(image, orientation):
    """Undoes an EXIF orientation."""
    swapped = orientation >= 5
    image = tf.cond(swapped, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)

    def one_of(*values):
        return tf.reduce_any(orientation == tf.constant(values))

    mirrored, upside_down = one_of(2, 3, 6, 7), one_of(3, 4, 7, 8)
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    return tf.cond(upside_down, lambda: image[::-1], lambda: image)


def fit(image, size, crop):
    """An image at the size of `decode_batch`, within a grey level of Pillow's.

    Args:
        image: (height, width, 3), grey levels.
        size, crop: As of `decode_batch`.

    Returns:
        float32 (size, size, 3) of whole grey levels.
    """
    if not size:
        return tf.cast(image, tf.float32)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.constant([size, size])
    if crop:
        shorter = round(size / EVALUATION_CROP)
        # torchvision's Resize: the longer edge rounds down.
        scaled = tf.floor(shorter * shape / tf.reduce_min(shape) + 1e-4)
        target = tf.cast(scaled, tf.int32)
    image = tf.image.resize(image, target, "bilinear", antialias=True)
    image = tf.round(tf.clip_by_value(image, 0.0, 255.0))
    if crop:
        # Half a pixel rounds to even, as in torchvision's CenterCrop.
        top, left = tf.unstack(tf.cast(tf.round((target - size) / 2), tf.int32))
        image = image[top : top + size, left : left + size]
    return image
