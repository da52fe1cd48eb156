"""Features of a folder through a real server, and straight from the SavedModel."""

import base64
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.mutations.images import valid_files
from export import client as command
from export.client import FeatureClient
from export.extract import LocalModel
from export.extraction import (
    ExtractionError,
    Images,
    RequestError,
    Unavailable,
    extract,
)
from export.extraction_settings import listed_images
from export.sending import served_form
from slotcon_tf.images.decoding import decode_image
from tests.support.command import ENVIRONMENT, ROOT, free_ports, module, modules, until
from tests.support.picture_case import encoded, pictures
from tests.support.serving_case import serving


@pytest.fixture(scope="module")
def served(exported):
    return exported.parent


@pytest.fixture(scope="module")
def local(served):
    return LocalModel(served)


@pytest.fixture(scope="module")
def server(served):
    with serving(served) as started:
        yield started


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """64 good pictures and six bad files, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(pictures(64)):
        place = folder / ("a" if index % 2 else "b")
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{index:02d}.png")
    whole = (folder / "a" / "01.png").read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "garbage.jpg").write_bytes(b"no picture")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (300, 200)).save(folder / "many_pixels.png")
    (folder / "large_file.png").write_bytes(os.urandom(2**20 + 1))
    (folder / "gone.jpg").symlink_to("nowhere")
    return folder


BAD = {
    "empty.jpg": "empty",
    "garbage.jpg": "no known image format",
    "truncated.png": "damaged",
    "many_pixels.png": "too many pixels",
    "large_file.png": "1.0 MiB is more than `max_image_mb`",
}


def truth(local, paths):
    """Each image alone, by the SavedModel in this process."""
    return np.concatenate(
        [local.predict([pathlib.Path(p).read_bytes()])["pooled"] for p in paths]
    )


@pytest.mark.parametrize("count", [1, 8, 64])
@pytest.mark.slow
def test_one_eight_and_sixty_four_images(count, server, local, photos, tmp_path):
    paths = tuple(sorted(photos.glob("?/*.png"))[:count])
    output = tmp_path / "features.npz"
    with FeatureClient(server.address) as client:
        client.check()
        assert client.extract(Images(photos, paths), output) == {}
    table = np.load(output)
    assert list(table["paths"]) == [str(p.relative_to(photos)) for p in paths]
    np.testing.assert_allclose(table["pooled"], truth(local, paths), atol=1e-5)
    assert table["ok"].all() and set(table["reason"]) == {"ok"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.npz"]


def test_the_limit_is_of_what_is_sent(tmp_path):
    """A small AVIF or TIFF may be a large PNG; and each is converted once."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.tif", compression="jpeg")
    Image.fromarray(noise[:8]).save(tmp_path / "b.tif")
    assert (tmp_path / "a.tif").stat().st_size < 10_000
    sent = []

    def predict(content):
        sent.extend(content)
        assert [served_form(data) is data for data in content] == [True]
        return {"pooled": np.ones((len(content), 2), np.float32)}

    paths = sorted(tmp_path.iterdir())
    failed = extract(
        predict,
        Images(tmp_path, paths),
        tmp_path / "f.npz",
        settings={},
        max_image_bytes=10_000,
    )
    assert list(failed) == ["a.tif"]
    assert failed["a.tif"].endswith("more than `max_image_mb`, as the PNG that is sent")
    assert len(sent) == 1 and len(sent[0]) < 10_000


@pytest.mark.slow
def test_bad_images_are_named_and_the_others_have_their_rows(
    server, served, local, photos, tmp_path
):
    """As typed: over gRPC into Parquet, and offline into .npz; the same table."""
    asked = [f"--images={photos}", "--max_image_mb=1", "--batch_size=5"]
    output = tmp_path / "features.parquet"
    offline = tmp_path / "offline.npz"
    client = [f"--server={server.address}", f"--output={output}"]
    done, _ = modules(
        ["export.client", *asked, *client],
        ["export.extract", *asked, f"--export_dir={served}", f"--output={offline}"],
    )
    assert "64 of 69 images" in done.stdout
    for name, reason in BAD.items():
        assert f"failed: {name} ({reason})" in done.stderr
    failed = (tmp_path / "features.parquet.failed.txt").read_text().splitlines()
    assert dict(line.split("\t") for line in failed) == BAD
    table, arrays = pq.read_table(output), np.load(offline)
    assert table["path"].to_pylist() == list(arrays["paths"])
    pooled = np.array(table["pooled"].to_pylist(), np.float32)
    np.testing.assert_allclose(pooled, arrays["pooled"], atol=1e-5)
    assert table["reason"].to_pylist() == list(arrays["reason"])
    good = [p for p in arrays["paths"] if p not in BAD]
    rows = arrays["pooled"][arrays["ok"]]
    np.testing.assert_allclose(
        rows, truth(local, [photos / p for p in good]), atol=1e-5
    )
    assert not arrays["pooled"][~arrays["ok"]].any()


@pytest.mark.parametrize("where", ["server", "extract"])
@pytest.mark.slow
def test_every_format_that_training_reads(where, server, local, tmp_path):
    """As files, a TIFF and an animation among them, and as the PNGs of their pixels."""
    folder = tmp_path / "all"
    folder.mkdir()
    files = valid_files(np.random.default_rng(0))
    names = sorted(n for n in files if not n.endswith((".jp2", ".ppm", ".ico", ".tga")))
    for name in names:
        (folder / name).write_bytes(files[name])
    images = Images(folder, tuple(folder / name for name in names))
    model = local if where == "extract" else FeatureClient(server.address)
    output = tmp_path / "features.npz"
    assert model.extract(images, output) == {}
    pixels = [encoded(decode_image(files[name]), "PNG") for name in names]
    expected = local.predict(pixels)["pooled"]
    np.testing.assert_allclose(np.load(output)["pooled"], expected, atol=1e-5)
    # The methods for Python convert as well.
    found = model.predict([files["lzw.tif"], b"no image"])
    assert list(found["ok"]) == [True, False]
    np.testing.assert_allclose(
        found["pooled"][0], expected[names.index("lzw.tif")], atol=1e-5
    )
    assert len(model.predict([])["pooled"]) == 0


def test_files_that_are_no_files(local, tmp_path):
    """A pipe does not hang; a reason of training's is the row's."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "float.tif").write_bytes(encoded(np.zeros((8, 8), np.float32), "TIFF"))
    (tmp_path / "note.png").write_bytes(b"<html>")
    paths = sorted(tmp_path.iterdir())
    failed = local.extract(Images(tmp_path, paths), tmp_path / "a.npz")
    assert failed["pipe.png"] == "unreadable: no regular file"
    assert "no fixed range" in failed["float.tif"]
    assert failed["note.png"] == "a text file"


@pytest.mark.slow
def test_other_outputs_and_a_list(server, photos, tmp_path):
    names = tmp_path / "list.txt"
    paths = sorted(photos.glob("a/*.png"))[:3]
    names.write_text("".join(f"{p}\n" for p in paths))
    output = tmp_path / "objects.parquet"
    flags = [f"--server={server.address}", f"--images={names}", "--signature=objects"]
    flags += ["--outputs=vector,box,valid", f"--output={output}"]
    module("export.client", *flags)
    table = pq.read_table(output)
    assert table.schema.field("vector").metadata[b"shape"] == b"5,32"
    assert len(table["vector"][0]) == 5 * 32 and len(table) == 3


@pytest.mark.slow
def test_refusals(server, photos, tmp_path, capsys):
    images = Images(photos, tuple(photos.glob("a/*.png")))
    for options, message in [
        ({"signature": "serving_default"}, "takes image_bytes: .*'groups'"),
        (
            {"outputs": ["features"]},
            "`outputs` must be of those of image_bytes: .*'pooled'",
        ),
        ({"model_name": "other"}, "NOT_FOUND.*other"),
    ]:
        client = FeatureClient(server.address, **options)
        with client, pytest.raises(ExtractionError, match=message):
            client.check()
    nobody = FeatureClient(f"127.0.0.1:{free_ports(1)[0]}", retry_seconds=0.5)
    with nobody, pytest.raises(Unavailable, match="must answer.*UNAVAILABLE"):
        nobody.extract(images, tmp_path / "a.npz", batch_size=4)
    assert not list(tmp_path.iterdir())  # of which version was not known

    def away(content):
        raise Unavailable("It must answer.")

    with FeatureClient(server.address) as client:
        settings = {"settings": client.settings(), "batch_size": 4}
        with pytest.raises(Unavailable):
            extract(away, images, tmp_path / "a.npz", **settings)
        with pytest.raises(ExtractionError, match="Received other batch_size"):
            client.extract(images, tmp_path / "a.npz", batch_size=5)
    with pytest.raises(SystemExit) as end:
        command.main(["client", f"--images={photos}", "--output=a.csv"])
    assert end.value.code == 2
    assert "--output must end in .npz" in capsys.readouterr().err


def test_a_refused_batch_is_halved_until_the_culprit_is_alone(photos, tmp_path):
    paths = tuple(sorted(photos.glob("a/*.png"))[:8])
    poison = paths[5].read_bytes()
    calls = []

    def predict(content):
        calls.append(len(content))
        if poison in content:
            raise RequestError("too much")
        return {"pooled": np.array([[len(data)] for data in content], np.float32)}

    output = tmp_path / "a.npz"
    failed = extract(predict, Images(photos, paths), output, settings={})
    assert failed == {str(paths[5].relative_to(photos)): "refused: too much"}
    sizes = [[p.stat().st_size if p != paths[5] else 0] for p in paths]
    np.testing.assert_array_equal(np.load(output)["pooled"], sizes)
    assert sorted(calls) == [1, 1, 2, 2, 4, 4, 8]


@pytest.mark.slow
def test_the_server_dies_and_comes_back(served, local, photos, tmp_path):
    """Killed in mid-run and started again on its port: nothing lost, nothing mixed."""
    paths = tuple(sorted(photos.glob("?/*.png"))) * 4
    output = tmp_path / "features.npz"
    with serving(served) as server, FeatureClient(server.address) as client:
        failed = []
        options = {"batch_size": 4, "concurrency": 3}
        work = threading.Thread(
            target=lambda: failed.append(
                client.extract(Images(photos, paths), output, **options)
            )
        )
        work.start()
        until_parts(output, 5)
        server.kill()
        time.sleep(1)
        server.start()
        work.join()
        assert failed == [{}]
    once = truth(local, paths[:64])
    found = np.load(output)["pooled"]
    np.testing.assert_allclose(found, np.tile(once, (4, 1)), atol=1e-5)


def until_parts(output, count):
    folder = output.with_name(output.name + ".partial")
    until(lambda: len(list(folder.glob("0*.npz"))) >= count, "a part")


@pytest.mark.slow
def test_the_client_is_killed_and_goes_on(server, local, photos, tmp_path):
    """SIGKILL in mid-run; the same command asks only for what is missing."""
    many = tmp_path / "list.txt"
    paths = sorted(photos.glob("?/*.png")) * 20
    many.write_text("".join(f"{p}\n" for p in paths))
    output = tmp_path / "features.npz"
    command = [sys.executable, "-m", "export.client", f"--server={server.address}"]
    command += [f"--images={many}", f"--output={output}", "--batch_size=4"]
    quiet = {"cwd": ROOT, "env": ENVIRONMENT, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--concurrency=1"], **quiet)
    until_parts(output, 5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = list(output.with_name("features.npz.partial").glob("0*"))
    assert not output.exists() and len(parts) >= 5
    # What is there is not asked again: it may hold anything.
    first = min(parts)
    with np.load(first) as rows:
        marked = {**rows, "pooled": np.full_like(rows["pooled"], 7)}
    np.savez(first, **marked)
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pooled = np.load(output)["pooled"]
    assert (pooled[:4] == 7).all()
    once = truth(local, paths[:64])
    np.testing.assert_allclose(pooled[4:], np.tile(once, (20, 1))[4:], atol=1e-5)


class Rest(http.server.BaseHTTPRequestHandler):
    """TF Serving's REST format around the SavedModel; no binary of it is here."""

    model = None

    def do_GET(self):  # noqa: N802  the base class's name
        if self.path != "/v1/models/slotcon/labels/stable/metadata":
            return self.say(404, {"error": f"no {self.path}"})
        kinds = {"float32": "DT_FLOAT", "bool": "DT_BOOL", "int32": "DT_INT32"}

        def form(dtype, shape):
            return {
                "dtype": dtype,
                "tensor_shape": {"dim": [{"size": s} for s in shape]},
            }

        found = self.model.predict([b""])
        signature = {
            "inputs": {"image_bytes": form("DT_STRING", ["-1"])},
            "outputs": {
                name: form(kinds[v.dtype.name], ["-1", *map(str, v.shape[1:])])
                for name, v in found.items()
            },
        }
        signatures = {"signature_def": {"signature_def": {"image_bytes": signature}}}
        spec = {"name": "slotcon", "signature_name": "", "version": "1"}
        self.say(200, {"model_spec": spec, "metadata": signatures})

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["signature_name"] == "image_bytes"
        assert self.path == "/v1/models/slotcon/versions/1:predict"  # of the label
        files = [base64.b64decode(f["b64"]) for f in body["inputs"]["image_bytes"]]
        found = self.model.predict(files)
        self.say(200, {"outputs": {name: v.tolist() for name, v in found.items()}})

    def say(self, status, answer):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


def test_rest(local, photos):
    Rest.model = local
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    content = [p.read_bytes() for p in sorted(photos.glob("a/*.png"))[:3]] + [b"bad"]
    address = f"127.0.0.1:{server.server_port}"
    with FeatureClient(address, transport="rest", version_label="stable") as client:
        found = client.predict(content)
    for name, value in local.predict(content).items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    client = FeatureClient(address, transport="rest")
    with client, pytest.raises(ExtractionError, match="NOT_FOUND"):
        client.predict(content)
    server.shutdown()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"l.txt": "gone.jpg"}, "must name files that are there"),
        ({"l.txt": ""}, "an empty list"),
        ({"a.tfrecord": "x"}, "must hold images.*records.*Check the path"),
        ({}, "It holds no files. Check the path"),
    ],
)
def test_what_cannot_be_extracted_names_no_flag_of_others(content, message, tmp_path):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    images = tmp_path / "l.txt" if "l.txt" in content else tmp_path
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        listed_images(images)
    assert "--" not in str(caught.value)
