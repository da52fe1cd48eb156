"""Stalled, broken, lying servers: nothing false is written, and nothing hangs."""

import concurrent.futures
import gc
import pathlib
import sys
import time

import numpy as np
import pytest
from PIL import Image

from slotcon_client import ExtractionError, FeatureClient, RequestError
from slotcon_client.extraction import Images, extract
from slotcon_client.files import LOCAL
from slotcon_client.parts import DIGEST, LIMIT, Parts
from slotcon_client.shards import (
    begin,
    column_of,
    features_in,
    write_manifest,
    write_shard,
)
from slotcon_client.table_files import open_table
from slotcon_client.tables import Table, write
from tests.support.lies import LIES, ONCE, features_of
from tests.support.lying_server import LyingServer

HANG = 90.0  # seconds: deadlines below are 0.5, but 250 lies share a busy machine
QUICK = {"deadline": 0.5, "retry_seconds": 0.6, "max_message_bytes": 2**20}


@pytest.fixture(scope="module")
def server():
    server = LyingServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four pictures, a text and nothing."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "text.png").write_bytes(b"no picture at all")
    (folder / "void.png").write_bytes(b"")
    return Images(folder, tuple(sorted(folder.iterdir())))


def outcome(server, photos, transport, model, output):
    """ "" if nothing false was written, else what was."""
    began = time.monotonic()
    client = FeatureClient(
        getattr(server, transport), transport=transport, model_name=model, **QUICK
    )
    with client:
        try:
            # As they are: the texts reach the server, too.
            failed = extract(
                client.predict,
                photos,
                output,
                settings=client.settings(),
                batch_size=6,
                concurrency=2,
                convert=bytes,
            )
        except (ExtractionError, RequestError) as error:
            text = str(error)
            one_line = "\n" not in text and 20 < len(text) < 700
            return "" if one_line and not output.exists() else f"said {text!r}"
        except Exception as error:  # what would be a traceback
            return f"raised {error!r}"
        finally:
            if time.monotonic() - began > HANG:
                return f"took {time.monotonic() - began:.0f} s"  # noqa: B012
    table = dict(np.load(output))
    # Of failures alone there are no outputs.
    if not table["ok"].any():
        table.setdefault("pooled", np.zeros((6, 4)))
    wrong = set()
    for path, features, ok, reason in zip(
        photos.paths, table["pooled"], table["ok"], table["reason"], strict=True
    ):
        truth = features_of(pathlib.Path(path).read_bytes())
        as_read = ok and np.allclose(features, truth, rtol=1e-6)
        if not (as_read or (not ok and not features.any() and reason != "ok")):
            wrong.add(f"wrote {features} for {path.name}")
    if not failed.unanswered and not model.startswith("once."):
        wrong.add("told of no failure")
    return ", ".join(sorted(wrong))


@pytest.mark.parametrize("transport", LIES)
def test_no_lie_becomes_features(transport, server, photos, tmp_path):
    """All at once: most of the time is waiting for those that stall."""
    lies = LIES[transport]
    assert len(set(lies)) == len(lies) > 100

    def told(lie):
        return outcome(server, photos, transport, lie, tmp_path / f"{lie}.npz")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = dict(zip(lies, pool.map(told, lies), strict=True))
    assert {lie: wrong for lie, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("transport", "fault"), [(t, f) for t, faults in ONCE.items() for f in faults]
)
def test_a_fault_of_a_moment_is_tried_again(transport, fault, server, photos, tmp_path):
    model, output = f"once.{fault}", tmp_path / "a.npz"
    assert outcome(server, photos, transport, model, output) == ""
    assert np.load(output)["ok"].tolist() == [True] * 4 + [False] * 2


def test_threads_may_read_what_numpy_wrote(tmp_path):
    """CPython 3.11's `ast`, by which it reads headers, fails when interrupted."""
    rows = {"ok": np.ones(2, bool), "reason": np.array(["ok"] * 2), "x": np.ones(2)}
    parts = Parts(str(tmp_path / "parts"), {}, LOCAL)
    beside = {DIGEST: np.zeros((2, 32), np.uint8), LIMIT: np.array(0)}
    parts.write(0, {**rows, **beside})
    folder, table = str(tmp_path / "shards"), Table.of(rows)
    begin(folder, {"settings": {}})
    shard = write_shard(folder, 0, {"": table}, {})
    write_manifest(folder, {"settings": {}}, [shard], finished=True)
    write(str(tmp_path / "a.npz"), table)

    def read(_):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert parts.contents(0)["ok"].all() and "x" in parts.columns(0)
            assert next(parts.each([0]))["x"].all()
            assert column_of(folder, "00000", "ok").all()
            assert next(features_in(folder))["x"].all()
            assert open_table(tmp_path / "a.npz").rows == 2

    before, interval = gc.get_threshold(), sys.getswitchinterval()

    def interrupt(*_):
        return [0 for _ in range(3)]

    try:
        gc.set_threshold(5)
        gc.callbacks.append(interrupt)
        sys.setswitchinterval(1e-6)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(8)))
    finally:
        sys.setswitchinterval(interval)
        gc.callbacks.remove(interrupt)
        gc.set_threshold(*before)
