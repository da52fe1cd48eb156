"""The first answer of a server that was warmed up comes as soon as later ones."""

import statistics
import time

import numpy as np
import pytest

from slotcon_client import FeatureClient
from slotcon_tf import backbone
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.signatures import ServingOptions
from tests.support.picture_case import encoded
from tests.support.serving_case import serving
from tests.support.small_case import used

pytestmark = pytest.mark.slow
IMAGES = 8
# A signature each: neither makes the other's graph ready.
ASKED = {"grpc": "image_bytes", "rest": "embed"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a model that takes a tenth of a second, so that noise does not decide."""
    folder = tmp_path_factory.mktemp("first") / "slotcon"
    options = ServingOptions(image_size=224, signatures=("image_bytes", "embed"))
    encoder = used(backbone("resnet10", width=16))
    export_model(encoder, folder, options=options, warmup_batches=(IMAGES,))
    return folder


def first_to_median(server):
    """The first answer's time as multiple of the later ones' median, by transport."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 256, 256, 3), np.uint8)
    content = [encoded(one, quality=90) for one in pixels]
    found = {}
    for transport, signature in ASKED.items():
        address = server.address
        if transport == "rest":
            address = f"127.0.0.1:{server.rest_port}"
        client = FeatureClient(
            address, transport=transport, model_name="slotcon", signature=signature
        )
        client.served  # noqa: B018  what is asked once is not of an answer's time
        # Of requests: the client's first batch takes more, whose rows it checks.
        times = _timed(client)
        for _ in range(7):
            assert client.predict(content)["pooled"].any(axis=1).all()
        found[transport] = times[0] / statistics.median(times[-6:])
    return found


def _timed(client):
    """List that gets the seconds of each request that a client sends."""
    times, send = [], client._wire.send

    def timed(*request):
        start = time.perf_counter()
        answer = send(*request)
        times.append(time.perf_counter() - start)
        return answer

    client._wire.send = timed
    return times


def test_warmed_up_within_twice_the_median_and_cold_not(folder):
    with serving(folder, "--nowarmup", rest=True) as server:
        cold = first_to_median(server)
    assert all(ratio > 2 for ratio in cold.values()), cold
    with serving(folder, rest=True) as server:
        warm = first_to_median(server)
    if max(warm.values()) > 2:  # another's burst of work, or truly cold: once more
        with serving(folder, rest=True) as server:
            warm = first_to_median(server)
    assert all(ratio <= 2 for ratio in warm.values()), (warm, cold)
