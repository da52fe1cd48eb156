"""Features of images from Python, without TensorFlow: `pip install slotcon-client`.

    python examples/clients/client.py localhost:8500 photo.jpg ...

The first image's neighbours among the others, once by the synchronous client and once
by the one for asyncio.
"""

import asyncio
import pathlib
import sys

import numpy as np

from slotcon_client import AsyncFeatureClient, FeatureClient

OPTIONS = {"signature": "embed", "outputs": ("pooled", "ok", "reason")}


def by_likeness(pooled):
    """Rows from the most like the first to the least; of few images, not whitened."""
    vectors = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return np.argsort(-vectors @ vectors[0])


async def together(server, files):
    """A request for each file, all under way at once."""
    async with AsyncFeatureClient(server, **OPTIONS) as client:
        found = await asyncio.gather(*(client.predict([file]) for file in files))
    return np.concatenate([one["pooled"] for one in found])


def main(server, *paths):
    files = [pathlib.Path(path).read_bytes() for path in paths]
    with FeatureClient(server, **OPTIONS) as client:
        found = client.predict(files)
    for row in by_likeness(found["pooled"]):
        print(paths[row], "ok" if found["ok"][row] else found["reason"][row])
    far = np.abs(asyncio.run(together(server, files)) - found["pooled"]).max()
    print(f"by asyncio: {far:.1g} off at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
