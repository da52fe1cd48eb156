"""What a client of ONNX files, Triton or KServe does to an image file, in full.

    python examples/clients/decode.py onnx/contract.json onnx/pooled.onnx photo.jpg

Pillow and numpy alone, as the contract beside the files says it; ONNX Runtime to run
them. `square_of` is for copying into a client of yours.
"""

import io
import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageOps

TOPS = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits


def square_of(content, contract, what="pooled"):
    """Bytes of an image file to pixels.

    Args:
        content: bytes of the file.
        contract: dict, from contract.json.
        what: "pooled", or "groups" for whole images stretched to the square.

    Returns:
        uint8 (size, size, 3).
    """
    image = Image.open(io.BytesIO(content))
    image.seek(0)  # the first frame
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "F"):
        image = _eight_bits(np.asarray(image), contract["pixel_range"])
    elif image.mode not in ("RGB", "RGBA"):
        # A palette's colours first: its transparency is not to be blended in.
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    image = Image.fromarray(np.asarray(image)[..., :3])
    square = contract["squares"][what]
    size, by = square["size"], Image.Resampling.BILINEAR
    if square["how"] == "stretched":
        return np.asarray(image.resize((size, size), by))
    shortest = min(image.size)
    image = image.resize(
        [n * square["shorter_edge"] // shortest for n in image.size], by
    )
    left, top = (round((n - size) / 2) for n in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _eight_bits(values, pixel_range):
    if pixel_range:
        low, high = pixel_range
    else:
        low, high = 0, min(top for top in TOPS if top >= values.max())
    scaled = (np.clip(values, low, high) - low) / (high - low) * 255
    grey = np.floor(scaled if not pixel_range else scaled + 0.5).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def main(contract, model, *paths):
    import onnxruntime

    contract = json.loads(pathlib.Path(contract).read_text())
    what = "groups" if pathlib.Path(model).stem == "groups" else "pooled"
    images = [square_of(pathlib.Path(p).read_bytes(), contract, what) for p in paths]
    session = onnxruntime.InferenceSession(model)
    found, *_ = session.run(None, {"image": np.stack(images)})
    for path, row in zip(paths, found, strict=True):
        print(path, row.shape, row.ravel()[:4])


if __name__ == "__main__":
    main(*sys.argv[1:])
