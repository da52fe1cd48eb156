"""The EXIF orientation of an image, and what it means for pixels."""

from PIL import ExifTags


def orientation_of(image):
    """What an image's EXIF says of its pixels, as Pillow reads it.

    Args:
        image: PIL.Image.Image; loaded, if its file may tell behind the pixels.

    Returns:
        A number from 1 to 8; 1 where there is none, or a broken one.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  garbage beside good pixels
        return 1
    return next((number for number in range(1, 9) if number == value), 1)


def turned(pixels, number):
    """A view of an array (height, width, ...) as an orientation turns it upright."""
    if number in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if number in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if number in (3, 4, 7, 8) else pixels
