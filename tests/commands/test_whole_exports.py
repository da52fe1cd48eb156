"""What an export holds: each weight once, a card that is true, answers that are."""

import json
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf import backbone
from slotcon_tf.detection import MaskRCNN
from slotcon_tf.evaluation.results import SCORES, result, write_result
from slotcon_tf.interop import load_slotcon
from slotcon_tf.runs.detection_config import DetectionConfig
from slotcon_tf.runs.exporting import ExportConfig, export
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.loading import run_checkpoints
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.provenance import provenance, published
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving import archive
from slotcon_tf.serving.archive import serve
from slotcon_tf.serving.detector import DetectorOptions, export_detector
from slotcon_tf.serving.folding import fold_batch_norm
from slotcon_tf.serving.model_card import CARD_FILE, README_FILE, weights_digest
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.verification import NotTheSame, near, verify
from slotcon_tf.serving.warmup import signature_definitions
from tests.support.command import ROOT
from tests.support.golden_case import CHECKPOINT
from tests.support.picture_case import pictures
from tests.support.saved_case import session_answers
from tests.support.small_case import used

OLD_RUNS = ROOT / "tests" / "golden" / "old_runs"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(pictures(40)):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def encoder_export(photos, tmp_path_factory):
    """A small encoder's, whitened and verified; and the encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    encoder = used(backbone("resnet10", width=4))
    encoder.save(folder / "encoder.keras")
    config = ExportConfig(
        model=str(folder / "encoder.keras"),
        export_dir=str(folder / "served"),
        calibration_images=str(photos),
        image_size=32,
        batch_sizes=(),
        whiten=36,
        license="CC-BY-4.0",
        verify=True,
    )
    return export(config), encoder


def arrays(version):
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = reader.get_variable_to_shape_map()
    names = [name for name in names if not name.startswith("_CHECKPOINTABLE")]
    return [reader.get_tensor(name) for name in names]


def data_bytes(version):
    (file,) = (version / "variables").glob("variables.data-*")
    return file.stat().st_size


@pytest.mark.slow
def test_each_weight_is_there_once(exported, encoder_export):
    """Folded weights, and of the heads what groups and objects need; no more."""
    model, _ = load_slotcon(CHECKPOINT)
    heads = model.network("teacher")
    needed = [*heads.projector.weights, *heads.grouping.weights]
    needed += fold_batch_norm(heads.encoder).weights
    version, encoder = encoder_export
    channels = encoder.output_shape[-1]
    statistics_ = [np.zeros((channels, channels), np.float32), np.zeros(channels, "f4")]
    for folder, expected in (
        (exported, [w.numpy() for w in needed]),
        (version, [w.numpy() for w in fold_batch_norm(encoder).weights] + statistics_),
    ):
        found = arrays(folder)
        assert sorted(a.shape for a in found) == sorted(a.shape for a in expected)
        total = sum(a.nbytes for a in expected)
        # The rest says how the objects hang together.
        assert total <= data_bytes(folder) < total + 100_000
        large = [a.tobytes() for a in found if a.size > 200]
        assert len(large) == len(set(large))
        # Not in the graph either: it holds no large constants.
        assert (folder / "saved_model.pb").stat().st_size < 3_000_000
    loaded = tf.saved_model.load(str(version))
    assert len(loaded.variables) == len(arrays(version))


@pytest.mark.slow
def test_whitened_features_of_an_export(encoder_export, photos):
    version, _ = encoder_export
    answer, _ = session_answers(version)
    content = [path.read_bytes() for path in sorted(photos.iterdir())]
    sent = [*content, b"no image"]
    plain, found = (answer(name, sent) for name in ("embed", "embed_whitened"))
    # REST sends all that there is: of each signature one vector.
    assert set(plain) == {"pooled", "ok", "reason"}
    assert set(found) == {"whitened", "ok", "reason"}
    assert found["ok"].tolist() == [True] * 40 + [False]
    assert not found["whitened"][-1].any()
    whitened, pooled = found["whitened"][:40], plain["pooled"][:40]
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1, atol=1e-5)
    pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    pairs = np.triu_indices(40, 1)
    before, after = ((rows @ rows.T)[pairs] for rows in (pooled, whitened))
    # The network is a random one: how near its features are to each other varies.
    assert abs(after.mean()) < 0.1 and before.mean() > after.mean() + 0.3
    assert after.std() > 0.1
    # As JSON, an answer of 2048 numbers would stay below 30 kB.
    for rows in (plain["pooled"], found["whitened"]):
        digits = [len(str(value)) + 2 for value in rows[:40].ravel()]
        assert 2048 * np.mean(digits) < 29_500
    # What is asked for alone is the same.
    alone = answer("embed", content[:3], ("pooled", "ok"))
    assert set(alone) == {"pooled", "ok"}
    np.testing.assert_allclose(
        alone["pooled"], answer("image_bytes", content[:3])["pooled"], atol=1e-5
    )


@pytest.mark.slow
def test_the_card_is_true(exported, encoder_export):
    version, _ = encoder_export
    card = json.loads((version / CARD_FILE).read_text())
    assert card["license"] == "CC-BY-4.0" and card["trained_on"] is None
    assert card["model"]["kind"] == "encoder"
    assert card["whitening"]["images"] == 36 and card["input"]["options"]
    assert card["weights_sha256"] == weights_digest(version)
    assert (
        card["signatures"]["embed_whitened"]["outputs"]["whitened"]["dtype"]
        == "float32"
    )
    assert card["versions"]["tensorflow"] == tf.__version__
    readme = (version / README_FILE).read_text()
    assert card["weights_sha256"] in readme and "CC-BY-4.0" in readme
    assert "Not stated." in readme and "`embed`" in readme
    other = json.loads((exported / CARD_FILE).read_text())
    assert other["model"]["prototypes"] == 16 and other["license"] is None
    assert set(other["signatures"]) >= {"groups", "objects", "instances"}
    assert other["weights_sha256"] != card["weights_sha256"]


def test_a_digest_knows_numbers_and_not_names(tmp_path):
    first, second, third = (tf.Module() for _ in range(3))
    first.a, first.b = tf.Variable([1.0, 2.0]), tf.Variable(3)
    second.z, second.a = tf.Variable([1.0, 2.0]), tf.Variable(3)
    third.a, third.b = tf.Variable([1.0, 2.5]), tf.Variable(3)
    digests = []
    for index, module in enumerate((first, second, third)):
        tf.saved_model.save(module, str(tmp_path / str(index)))
        digests.append(weights_digest(tmp_path / str(index)))
    assert digests[0] == digests[1] != digests[2]


def test_where_runs_come_from():
    """What a run wrote, and no path of the machine that it ran on."""
    found = provenance(OLD_RUNS / "finetune")
    assert found["scores"]["miou"] == 0.25
    assert found["recipe"]["command"] == "finetune_segmentation"
    assert found["model"]["started_from"] == "slotcon.keras"
    assert found["trained_on"]["dataset"]
    found = provenance(OLD_RUNS / "pretrain")
    assert found["model"]["title"] == "pretrain"
    assert "--arch=tiny" in found["recipe"]["flags"]
    assert not [line for line in found["recipe"]["flags"] if "/" in line]
    nothing = provenance("somebody/elses.pth")
    assert nothing["recipe"] is nothing["trained_on"] is nothing["scores"] is None


def test_scores_are_of_the_model_that_is_exported(tmp_path):
    """Of its step and of its network, or none."""
    run = tmp_path / "run"
    checkpoints = [run / "checkpoints" / f"step_00000000{n}" for n in (2, 4)]
    shutil.copytree(OLD_RUNS / "pretrain", run)
    for folder in checkpoints:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(next(iter(run_checkpoints(OLD_RUNS / "pretrain"))), folder)
    (run / SCORES).unlink(missing_ok=True)
    history = run / "history.csv"
    history.write_text("epoch,step,val_miou\n0,2,0.1\n1,4,0.9\n")
    found = [provenance(c)["scores"] for c in checkpoints]
    assert [row["val_miou"] for row in found] == [0.1, 0.9]
    assert provenance(run)["scores"] == {"epoch": 1, "step": 4, "val_miou": 0.9}
    assert provenance(run, which="student")["scores"] is None
    # Rows without steps may be of any checkpoint.
    history.write_text("epoch,val_miou\n0,0.1\n1,0.9\n")
    assert provenance(checkpoints[0])["scores"] is None
    assert provenance(run)["scores"]["val_miou"] == 0.9
    history.write_text("epoch,val_miou\n0,0.1\n1,\n")  # the last was not measured
    assert provenance(run)["scores"] is None
    rows = {"miou": {"trained": [0.5, None, None]}}
    settings = {"which": "teacher"}
    write_result(run / SCORES, result("groups", rows, {}, "a", "val", settings, 4))
    model = types.SimpleNamespace(step=tf.constant(4))
    found = provenance(run, model, "teacher")["scores"]
    assert found["miou"] == 0.5 and found["step"] == 4 and found["which"] == "teacher"
    assert provenance(run, model, "student")["scores"] is None
    model.step = tf.constant(9)
    assert "miou" not in (provenance(run, model, "teacher")["scores"] or {})


def test_cards_name_nothing_of_a_machine(tmp_path):
    """Whatever is a path in a run's settings, those to come included."""
    for config in (PretrainConfig, FinetuneConfig, DetectionConfig):
        words = ("dir", "file", "_from", "tpu", "path", "list", "folder", "images")
        named = {
            known.flag
            for known in config.settings().values()
            if known.kind is str and any(word in known.flag for word in words)
        }
        lines = [f"--{name}=/home/me/x" for name in sorted(named)]
        assert "--init_from=/home/me/x" in lines and "--tpu=/home/me/x" in lines
        assert not published(config, lines), config
        assert published(config, ["--batch_size=8", "--new_dir=/a"]) == [
            "--batch_size=8"
        ]
    flags = tmp_path / PretrainConfig.flagfile
    for value, told in (
        ("/home/me/runs/a/checkpoints/step_000000400", "a (step 400)"),
        ("/home/me/runs/a/", "a"),
        ("/home/me/a.keras", "a.keras"),
    ):
        flags.write_text(f"--init_from={value}\n")
        assert provenance(tmp_path)["model"]["started_from"] == told
    # A file that a run has made knows its run.
    (tmp_path / "slotcon.keras").touch()
    flags.write_text("--arch=tiny\n")
    assert provenance(tmp_path / "slotcon.keras")["recipe"]["flags"] == ["--arch=tiny"]
    assert provenance(tmp_path / "other.keras")["recipe"] is None


def test_what_differs_is_not_verified(encoder_export):
    version, encoder = encoder_export
    served = serve(encoder, options=ServingOptions(image_size=32))
    own = {"serving_default": served.features}
    assert verify(version, own, 32)["serving_default"] < 1e-4

    def moved(images):
        found = served.features(images)
        return {**found, "pooled": found["pooled"] * 1.01}

    for wrong, told in (
        (moved, "default's pooled must be within 0.001.*Received: 0.0099"),
        (lambda images: {"map": served.features(images)["map"]}, "must give"),
    ):
        with pytest.raises(NotTheSame, match=told):
            verify(version, {"serving_default": wrong}, 32)
    with pytest.raises(NotTheSame, match="signature other"):
        verify(version, {"other": moved}, 32)
    with pytest.raises(NotTheSame, match="must load in a session"):
        verify(version / "variables", own, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "names"), [(32, ("embed", "image_bytes")), (32, ("pyramid",)), (0, ())]
)
def test_versions_of_any_choice_are_verified(size, names, tmp_path):
    """Without serving_default, and of images of any size."""
    encoder = used(backbone("resnet10", width=4))
    options = ServingOptions(image_size=size, signatures=names)
    version = archive.export_model(encoder, tmp_path, options=options, verified=True)
    written = set(signature_definitions(version))
    # What was not asked for is no signature by another's name.
    assert written == set(names) if names else "serving_default" in written


@pytest.mark.slow
def test_rows_of_zeros_are_no_proof(tmp_path):
    """Nothing is verified by images that a version does not read."""
    encoder = used(backbone("resnet10", width=4))
    names = ("embed",)
    options = ServingOptions(image_size=32, max_pixels=100, signatures=names)
    with pytest.raises(NotTheSame, match="must read the images.*`max_pixels`"):
        archive.export_model(encoder, tmp_path, options=options, verified=True)
    assert not list(tmp_path.iterdir())


def test_what_may_differ():
    masks = np.zeros((2, 10, 10), bool)
    masks[:, :2] = True
    moved = masks.copy()
    moved[0, 0, 0] = False  # 1 of 40 that are true, of 200 in all
    with pytest.raises(NotTheSame, match="mask must be within 0.01 .*Received: 0.025"):
        near("instances", {"mask": moved}, {"mask": masks})
    ok = np.arange(1000) > 0
    with pytest.raises(NotTheSame, match="ok must be within 0 "):
        near("embed", {"ok": ok}, {"ok": np.ones(1000, bool)})
    numbers = np.arange(1000)
    assert near("groups", {"assignments": numbers}, {"assignments": numbers * ok}) == 0


def test_nothing_is_left_of_what_differs(encoder_export, tmp_path, monkeypatch):
    _, encoder = encoder_export
    options = ServingOptions(image_size=32)
    whole = archive.write_card

    def spoils(folder, about):
        """The disk that lies: a version's weights are not what was written."""
        for file in (folder / "variables").glob("variables.data-*"):
            file.write_bytes(bytes(file.stat().st_size))
        return whole(folder, about)

    monkeypatch.setattr(archive, "write_card", spoils)
    with pytest.raises((NotTheSame, tf.errors.OpError)):
        archive.export_model(encoder, tmp_path, options=options, verified=True)
    assert not list(tmp_path.iterdir())


def test_settings_that_do_not_go_together(tmp_path):
    encoder = tmp_path / "encoder.keras"
    used(backbone("resnet10", width=4)).save(encoder)
    config = ExportConfig(model=str(encoder), export_dir=str(tmp_path), whiten=100)
    with pytest.raises(SettingError, match="needs `calibration_images`"):
        export(config)
    with pytest.raises(SettingError, match="32 images at least"):
        export(config.replace(whiten=31))
    with pytest.raises(SettingError, match="`license` must be left out.*format=onnx"):
        export(config.replace(whiten=0, license="CC0-1.0", format="onnx"))
    assert not list(tmp_path.glob("*/saved_model.pb"))


@pytest.mark.slow
def test_a_detector_is_whole_too(tmp_path):
    sizes = {"channels": 8, "units": 16, "max_detections": 3, "masks": False}
    encoder = used(backbone("resnet10", width=4))
    model = MaskRCNN(encoder, class_names=("cat", "dog"), **sizes)
    about = {"license": "MIT", "model": {"title": "pets"}}
    options = DetectorOptions(short_edge=64, long_edge=96)
    version = export_detector(
        model, tmp_path, options=options, about=about, verified=True
    )
    found = arrays(version)
    total = sum(a.nbytes for a in found)
    assert total <= data_bytes(version) < total + 100_000
    large = [a.tobytes() for a in found if a.size > 200]
    assert len(large) == len(set(large)) > 5
    card = json.loads((version / CARD_FILE).read_text())
    assert card["model"]["classes"] == ["cat", "dog"] and card["license"] == "MIT"
    assert "boxes" in card["signatures"]["detect"]["outputs"]
    assert "# pets" in (version / README_FILE).read_text()
