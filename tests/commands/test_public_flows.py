"""TF Serving's public client flows, with the light client against the local server.

Predict, metadata, status, labels and the version policy, over gRPC and REST.
"""

import asyncio

import numpy as np
import pytest
import tensorflow as tf

from slotcon_client import AsyncFeatureClient, ExtractionError, FeatureClient
from tests.support.command import until
from tests.support.picture_case import encoded, pictures
from tests.support.serving_case import serving

FILES = [encoded(picture, "PNG") for picture in pictures(3)] + [b"", b"no image"]


class Sizes(tf.Module):
    """A version: of files how long they are, times its number."""

    def __init__(self, number):
        super().__init__()
        self.number = tf.Variable(float(number))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def image_bytes(self, image_bytes):
        length = tf.strings.length(image_bytes)
        image = tf.strings.substr(image_bytes, 0, 2) == b"\x89P"
        image &= length > 1
        pooled = tf.cast(length, tf.float32)[:, None] * self.number
        reason = tf.where(image, 0, tf.where(length == 0, 1, 2))
        names = tf.strings.as_string(length)
        return {"pooled": pooled, "names": names, "ok": image, "reason": reason}


def export(folder, number):
    model = Sizes(number)
    signatures = {"image_bytes": model.image_bytes}
    tf.saved_model.save(model, str(folder / str(number)), signatures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    for number in (1, 2):
        export(folder, number)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    flags = ["--version_labels=stable:1,canary:2", "--keep_versions=1"]
    with serving(folder, *flags, rest=True) as started:
        yield started


def truth(number):
    good = [float(len(data) * number) for data in FILES[:3]]
    return np.float32([*good, 0, 0])[:, None]


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.slow
def test_the_flows(transport, server, folder):
    address = server.address if transport == "grpc" else f"127.0.0.1:{server.rest_port}"

    def client(**options):
        return FeatureClient(address, transport=transport, deadline=60, **options)

    # Predict, of the newest, a number, and labels; outputs by their names, or all.
    for place, number in [
        ({}, max(int(path.name) for path in folder.iterdir())),
        ({"version": 1}, 1),
        ({"version_label": "stable"}, 1),
        ({"version_label": "canary"}, 2),
    ]:
        with client(**place, outputs=()) as asked:
            found = asked.predict(FILES)
            assert asked.served.version == number
            np.testing.assert_array_equal(found["pooled"], truth(number))
            assert found["ok"].tolist() == [True] * 3 + [False] * 2
            assert found["reason"].tolist() == [0, 0, 0, 1, 2]
            assert found["names"][0] == str(len(FILES[0])).encode()
        with client(**place) as asked:
            assert set(asked.predict(FILES)) == {"pooled", "ok", "reason"}
    # Metadata.
    with client() as asked:
        assert asked.served.signature == {
            "pooled": ("float32", (None, 1)),
            "names": ("string", (None,)),
            "ok": ("bool", (None,)),
            "reason": ("int32", (None,)),
        }
        assert asked.is_well() and asked.status()[1] == "AVAILABLE"
    # What is not there.
    for wrong, said in [
        ({"version": 9}, "NOT_FOUND"),
        ({"version_label": "old"}, "old"),
        ({"model_name": "other"}, "NOT_FOUND"),
        ({"signature": "groups"}, r"takes image_bytes: \['image_bytes'\]"),
        ({"outputs": ["map"]}, r"\['names', 'ok', 'pooled', 'reason'\]"),
    ]:
        with client(**wrong) as asked, pytest.raises(ExtractionError, match=said):
            asked.predict(FILES)

    async def many():
        async with AsyncFeatureClient(address, transport=transport) as asked:
            found = await asyncio.gather(*(asked.predict(FILES[:1]) for _ in range(20)))
            return {float(one["pooled"][0, 0]) for one in found}

    assert len(asyncio.run(many())) == 1
    # A new version comes while a client is at work: it keeps to its own.
    newest = max(int(path.name) for path in folder.iterdir())
    with client() as asked, client(version=newest) as late:
        asked.predict(FILES)
        export(folder, newest + 1)
        until(lambda: newest + 1 in asked.status(), "the new version")
        until(lambda: asked.status()[newest + 1] == "AVAILABLE", "the new version")
        if newest == 2:  # which has a label, and stays
            np.testing.assert_array_equal(asked.predict(FILES)["pooled"], truth(2))
        else:
            until(lambda: asked.status()[newest] == "END", "the end of the old one")
            for gone in (asked, late):
                with pytest.raises(ExtractionError, match="NOT_FOUND"):
                    gone.predict(FILES)
        asked.renew()
        found = asked.predict(FILES)["pooled"]
        np.testing.assert_array_equal(found, truth(newest + 1))
