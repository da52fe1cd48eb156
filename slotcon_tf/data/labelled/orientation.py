"""EXIF orientation of images and label maps: which of them is turned already."""

from PIL import Image

from slotcon_tf.images.exif import orientation_of

_UNDONE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def fitting(stored, own, upright, of_image):
    """Orientations by which a label map lies on its upright image.

    Sizes decide, and what the label map's own EXIF says if the image's said the same.

    Args:
        stored: Height and width of the label map in its file.
        own: Its orientation.
        upright: Height and width of the image.
        of_image: The image's orientation, by which it was turned.

    Returns:
        List of numbers: empty if no size fits, several if it stays open.
    """
    candidates = sorted({1, own, of_image})
    found = [n for n in candidates if (stored[::-1] if n > 4 else stored) == upright]
    return [own] if own == of_image and own in found else found


def stored(image):
    """Pixels as they are in the file, and what its EXIF says of them.

    Args:
        image: Opened by Pillow, not loaded.

    Returns:
        Tuple of PIL.Image.Image and a number from 1 to 8.
    """
    before = orientation_of(image)
    image.load()
    if image.format != "TIFF":
        return image, orientation_of(image)  # a PNG may tell behind its pixels
    if before in _UNDONE:  # Pillow turns a TIFF while it loads
        image = image.transpose(_UNDONE[before])
    return image, before


def of_file(image, data):
    """By which orientation decode_image turns an image: 1 to 8.

    Args:
        image: Opened by Pillow, not loaded.
        data: Its bytes.
    """
    if image.format == "PNG" and any(w in data for w in (b"eXIf", b"exif", b"xmp")):
        image.load()
    if image.format == "JPEG" and image.mode == "RGB" and "exif" not in image.info:
        return 1
    return orientation_of(image)
