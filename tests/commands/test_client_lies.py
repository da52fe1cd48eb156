"""The client's command: what a server does wrong ends in one line and a status."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.command import ENVIRONMENT, ROOT, until
from tests.support.lying_server import LyingServer


@pytest.fixture(scope="module")
def server():
    server = LyingServer(token="secret")
    yield server
    server.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def flags(server, photos, tmp_path, monkeypatch):
    """Function of a transport and a model: the command's words; the token is set."""
    monkeypatch.setenv("SLOTCON_TOKEN", "secret")

    def words(transport, model, *more):
        asked = [f"--server={getattr(server, transport)}", f"--transport={transport}"]
        asked += [f"--model_name={model}", f"--images={photos}", "--deadline_s=0.5"]
        return [*asked, f"--output={tmp_path / 'a.npz'}", "--retry_minutes=0.01", *more]

    return words


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("honest", None),
        ("wider", "pooled must be float32"),
        ("a_nan", "refused"),
        ("swapped", "its own row"),
        ("stalls", "must answer|refused"),
        ("metadata_of_another", "metadata of 'another'"),
        ("no_features", "outputs asked for"),
    ],
)
def test_ends_in_one_line(transport, model, said, flags, tells, tmp_path):
    status, line, told = tells("export.client", *flags(transport, model))
    if said is None:
        assert status == 0, told
        assert np.load(tmp_path / "a.npz")["ok"].all()
        return
    assert status == 1
    assert any(word in line for word in said.split("|")), line


def test_a_token_comes_from_a_file_too(flags, ends, tmp_path, monkeypatch):
    """It goes before the environment's, and is not said."""
    (tmp_path / "token").write_text("an other one\n")
    words = flags("rest", "honest", f"--token_file={tmp_path / 'token'}")
    status, line = ends("export.client", *words)
    assert status == 1 and "401 no token" in line and "other" not in line
    monkeypatch.setenv("SLOTCON_TOKEN", "")  # as compose's ${SLOTCON_TOKEN:-} has it
    status, line = ends("export.client", *words[:-1])
    assert status == 1 and "401 no token" in line
    status, line = ends("export.client", *words[:-1], "--tls_key=a.pem")
    assert status == 2
    assert "--tls_certificate and --tls_key must be given both" in line


def test_ctrl_c_ends_it_at_once(server, flags, tmp_path):
    """Before a server that has stalled, whatever it was asked for."""
    asked = [("grpc", "stalls"), ("rest", "stalls"), ("rest", "metadata.stalls")]
    started, before = [], {key: server.seen[key] for key in asked}
    try:
        for transport, model in asked:
            words = flags(transport, model, "--deadline_s=600", "--retry_minutes=9")
            words.append(f"--output={tmp_path / f'{transport}.{model}.npz'}")
            command = [sys.executable, "-m", "export.client", *words]
            environment = {**ENVIRONMENT, "SLOTCON_TOKEN": "secret"}
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        for key, process in zip(asked, started, strict=True):
            until(lambda k=key: server.seen[k] > before[k], "a request", process)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
            assert process.returncode == 130, told
            assert time.monotonic() - began < 5
            assert "Traceback" not in told
    finally:
        for process in started:
            process.kill()
            process.wait()
