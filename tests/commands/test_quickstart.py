"""quickstart.flags on a few steps: trains, resumes, and its export answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.evaluation.results import read_result
from slotcon_tf.images import normalize
from tests.support.command import SAVED_MODEL_CLI, modules

pytestmark = pytest.mark.slow
SHORT = [
    "--flagfile=quickstart.flags",
    "--max_steps_per_epoch=2",
    "--image_size=64",
    "--batch_size=8",
    "--evaluation_scale=0.5",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs, and the same command again, which finds nothing to do."""
    workdir = tmp_path_factory.mktemp("quickstart")
    line = ["trainers.pretrain", *SHORT, f"--workdir={workdir}", "--epochs=2"]
    first, again = modules(line, line)
    return workdir, first, again


def test_scores_and_pictures_are_written(run):
    workdir, first, again = run
    scores = read_result(workdir / "scores.json")
    for stage in ("untrained", "trained"):
        value, low, high = scores["rows"]["nmi"][stage]
        assert 0 <= low <= value <= high <= 1
    assert scores["task"] == "groups" and scores["step"] > 0 and scores["classes"]
    assert "untrained" in first.stdout and "nmi" in first.stdout
    assert "done already" in again.stderr
    assert (workdir / "slots.png").stat().st_size > 10_000


def test_saved_model_answers_in_a_session_as_the_model_does(run):
    """TF Serving loads by session: so does this."""
    workdir, _, _ = run
    export = sorted((workdir / "export").iterdir())[-1]
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 80, 3), dtype=np.uint8)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(export))
        signature = meta.signature_def["serving_default"]
        names = {k: v.name for k, v in signature.outputs.items()}
        feed = {signature.inputs["image"].name: images}
        served = session.run(names, feed)
    model = keras.models.load_model(workdir / "slotcon.keras")
    maps = model(normalize(tf.cast(images, tf.float32)))["map"]
    assert served["map"].shape == (2, 6, 5, 512)  # stride 16
    np.testing.assert_allclose(served["map"], maps, rtol=1e-4, atol=1e-5)
    pooled = np.mean(maps, axis=(1, 2))
    np.testing.assert_allclose(served["pooled"], pooled, rtol=1e-4, atol=1e-5)


def test_saved_model_cli_shows_and_runs(run, tmp_path):
    workdir, _, _ = run
    export = str(sorted((workdir / "export").iterdir())[-1])
    np.save(tmp_path / "image.npy", np.zeros((1, 64, 64, 3), np.uint8))
    shown, _ = modules(
        [SAVED_MODEL_CLI, "show", "--dir", export, "--all"],
        [
            *(SAVED_MODEL_CLI, "run"),
            *("--dir", export, "--tag_set", "serve"),
            *("--signature_def", "serving_default"),
            *("--inputs", f"image={tmp_path / 'image.npy'}"),
            *("--outdir", tmp_path),
        ],
    )
    assert "inputs['image']" in shown.stdout, shown.stderr[-2000:]
    assert np.load(tmp_path / "pooled.npy").shape == (1, 512)
