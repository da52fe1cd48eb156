"""The examples' clients in other languages get the served numbers."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import serving_caller
from tests.support.command import ENVIRONMENT, ROOT, free_ports
from tests.support.picture_case import encoded, pictures
from tests.support.serving_case import serving

CLIENTS = ROOT / "examples" / "clients"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(exported):
    (rest,) = free_ports(1)
    with serving(exported.parent, f"--rest_port={rest}") as started:
        started.rest = f"http://127.0.0.1:{rest}"
        yield started


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(pictures()):
        (folder / f"{index}.jpg").write_bytes(encoded(picture, quality=95))
    (folder / "bad.jpg").write_bytes(b"no image")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def truth(exported, paths):
    loaded = tf.saved_model.load(str(exported))
    files = tf.constant([path.read_bytes() for path in paths])
    return {k: v.numpy() for k, v in loaded.signatures["embed"](files).items()}


def needs(program, *words):
    """Skips where a program, or what it needs, is missing."""
    if not shutil.which(program):
        pytest.skip(f"no {program} on PATH")
    if words and subprocess.run([program, *words], capture_output=True).returncode:
        pytest.skip(f"{program} {' '.join(words)} fails: npm install, or NODE_PATH")


def told(*words):
    done = subprocess.run(
        list(map(str, words)), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("transport", ["REST", "gRPC"])
def test_node(server, paths, truth, transport):
    needs("node", "-e", "fetch")
    if transport == "gRPC":
        both = "require('@grpc/grpc-js'); require('@grpc/proto-loader')"
        needs("node", "-e", f"process.chdir({json.dumps(str(CLIENTS))}); {both}")
    address = server.rest if transport == "REST" else server.address
    lines = told("node", CLIENTS / "client.mjs", address, *paths).splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["path"] for one in found] == [str(path) for path in paths]
    assert [one["ok"] for one in found] == truth["ok"].tolist()
    assert [one["reason"] for one in found] == truth["reason"].tolist()
    for row, one in enumerate(found):
        if one["ok"]:
            np.testing.assert_allclose(one["pooled"], truth["pooled"][row], rtol=1e-4)
        else:
            assert one["pooled"] is None
    if transport == "gRPC":
        assert {one["version"] for one in found} == {1}


@pytest.mark.parametrize("where", ["http://127.0.0.1:9", "127.0.0.1:9"])
def test_node_tells_what_went_wrong_in_a_line(paths, where):
    needs("node", "-e", "fetch; require('@grpc/grpc-js')")
    words = ["node", str(CLIENTS / "client.mjs"), where, str(paths[0])]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("client.mjs: ") and done.stderr.count("\n") == 1


def test_curl(server, paths, truth):
    needs("curl", "--version")
    found = json.loads(told(CLIENTS / "curl.sh", server.rest, paths[0]))["outputs"]
    np.testing.assert_allclose(found["pooled"][0], truth["pooled"][0], rtol=1e-4)
    assert found["ok"] == [True]
    # What a searcher's client takes from the net.
    assert len(json.dumps(found)) < 30_000


def test_the_benchmark_asks_in_every_way(server, paths, exported, truth, capsys):
    common = {
        "version": str(exported),
        "files": [str(paths[0])],
        "callers": [1, 2],
        "seconds": 0.2,
        "threads": 2,
        "address": server.address,
        "rest_address": server.rest.removeprefix("http://"),
    }
    told_by = {}
    for way, allowed in [("bare", []), ("batched", [1, 2]), ("full", [])]:
        serving_caller.main({**common, "way": way, "allowed": allowed})
        told_by[way] = capsys.readouterr().out
    script = ROOT / "benchmarks" / "serving_caller.py"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    for way in ("light gRPC", "light REST"):
        words = [sys.executable, str(script), json.dumps({**common, "way": way})]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told_by[way] = done.stdout
    for way, text in told_by.items():
        *rows, whole = map(json.loads, text.splitlines())
        assert [row["starts"] for row in rows[::2]] == [1, 2]
        rows = rows[1::2]
        assert [row["callers"] for row in rows] == [1, 2]
        assert all(row["seconds"] and row["core_seconds"] > 0 for row in rows)
        np.testing.assert_allclose(
            whole["first_row"], truth["pooled"][0], rtol=1e-4, err_msg=way
        )
        if way.startswith("light"):
            assert whole["ready_mib"] < 80


def test_python(server, paths):
    words = [sys.executable, CLIENTS / "client.py", server.address, *paths[:2]]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *rows, last = done.stdout.splitlines()
    assert rows[0] == f"{paths[0]} ok" and len(rows) == 2
    assert last.startswith("by asyncio: ")
