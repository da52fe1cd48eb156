"""What an export holds: each weight once, a card that is true, answers that are."""

import json
import statistics
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf import backbone
from slotcon_tf.detection import MaskRCNN
from slotcon_tf.interop import load_slotcon
from slotcon_tf.runs.exporting import ExportConfig, export
from slotcon_tf.runs.provenance import provenance
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving import archive
from slotcon_tf.serving.archive import serve
from slotcon_tf.serving.detector import DetectorOptions, export_detector
from slotcon_tf.serving.folding import fold_batch_norm
from slotcon_tf.serving.model_card import CARD_FILE, README_FILE, weights_digest
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.verification import NotTheSame, verify
from slotcon_tf.serving.warmup import warmup_requests
from tests.support.command import ROOT
from tests.support.golden_case import CHECKPOINT
from tests.support.picture_case import encoded, pictures
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
    found = answer("embed", [*content, b"no image"])
    assert set(found) == {"pooled", "whitened", "ok", "reason"}
    assert found["ok"].tolist() == [True] * 40 + [False]
    assert not found["whitened"][-1].any()
    whitened, pooled = found["whitened"][:40], found["pooled"][:40]
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1, atol=1e-5)
    pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    pairs = np.triu_indices(40, 1)
    before, after = ((rows @ rows.T)[pairs] for rows in (pooled, whitened))
    # The network is a random one: how near its features are to each other varies.
    assert abs(after.mean()) < 0.1 and before.mean() > after.mean() + 0.3
    assert after.std() > 0.1
    # As JSON, a vector of 2048 would stay below 30 kB.
    digits = [len(str(value)) + 2 for value in found["pooled"][:40].ravel()]
    assert 2048 * np.mean(digits) < 29_000
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
    assert card["signatures"]["embed"]["outputs"]["whitened"]["dtype"] == "float32"
    assert card["versions"]["tensorflow"] == tf.__version__
    readme = (version / README_FILE).read_text()
    assert card["weights_sha256"] in readme and "CC-BY-4.0" in readme
    assert "came without their run" in readme and "`embed`" in readme
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
    with pytest.raises(SettingError, match="`license` must be left out"):
        export(config.replace(whiten=0, license="CC0-1.0", format="onnx"))
    assert not list(tmp_path.glob("*/saved_model.pb"))


@pytest.mark.slow
def test_the_first_answer_after_warm_up_comes_as_soon_as_others(exported):
    """Once a session has answered the records, the client's requests are no news."""
    answer, _ = session_answers(exported)
    for request in warmup_requests(exported):
        if request.model_spec.signature_name == "embed":
            (value,) = request.inputs.values()
            answer("embed", tf.make_ndarray(value), tuple(request.output_filter))
    times = []
    for seed in range(9):
        content = [encoded(picture) for picture in pictures(3 + seed)[-3:]]
        start = time.perf_counter()
        answer("embed", content, ("pooled", "ok", "reason"))
        times.append(time.perf_counter() - start)
    # A fifth of a second for a machine with other work: a cold graph takes more.
    assert times[0] < 2 * statistics.median(times[1:]) + 0.2, times


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
