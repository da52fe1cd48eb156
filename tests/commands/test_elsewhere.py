"""ONNX files and model repositories answer as what TF Serving serves."""

import importlib.util
import io
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from examples.clients.decode import square_of
from slotcon_tf.images import square
from slotcon_tf.images.decoding import decode_image
from slotcon_tf.runs import ExportConfig, export
from slotcon_tf.runs.exporting_elsewhere import export_elsewhere
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.archive import export_model, serve
from slotcon_tf.serving.batching import PARAMETERS_FILE
from slotcon_tf.serving.contract import write_contract
from slotcon_tf.serving.model_card import CARD_FILE
from slotcon_tf.serving.precision import distance
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.triton import inference_service
from slotcon_tf.serving.whitening import FEWEST
from tests.support.command import run
from tests.support.golden_case import CHECKPOINT
from tests.support.picture_case import encoded, pictures
from tests.support.small_case import small_model

KSERVE = """
import json, sys, kserve
found = json.loads(sys.argv[1])
for values, kind in (
    (found, kserve.V1beta1InferenceService),
    (found["spec"], kserve.V1beta1InferenceServiceSpec),
    (found["spec"]["predictor"], kserve.V1beta1PredictorSpec),
    (found["spec"]["predictor"]["model"], kserve.V1beta1ModelSpec),
):
    assert values.keys() <= set(kind.attribute_map.values()), values
"""
runtime = pytest.importorskip("onnxruntime", reason="requirements.txt has it")


def config(folder, **options):
    return ExportConfig(model=str(CHECKPOINT), export_dir=str(folder), **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder that `--format=kserve` writes, and the others a part of."""
    folder, photos = (tmp_path_factory.mktemp(name) for name in ("served", "photos"))
    for index in range(FEWEST):
        picture = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(picture).resize((70, 80)).save(photos / f"{index}.png")
    sizes = {"image_size": 64, "mask_size": 48, "batch_sizes": (1, 4)}
    limits = {"max_objects": 3, "max_pixels": 10_000, "license": "CC0-1.0"}
    images = {"whiten": FEWEST, "calibration_images": str(photos)}
    names = {"storage_uri": "gs://a/onnx"}
    names["signatures"] = ("embed", "embed_whitened", "objects")
    export(config(folder, format="kserve", **sizes, **limits, **images, **names))
    return folder


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    """Of a model served at 64 pixels; no files are written."""
    served = serve(small_model(), options=ServingOptions(image_size=64))
    return write_contract(tmp_path_factory.mktemp("contract"), served, {})


def files():
    """Files as people send them: formats, orientation, transparency, depth."""
    one, two, three = pictures()
    turned, exif = Image.fromarray(two), Image.Exif()
    exif[0x0112] = 6
    upright = io.BytesIO()
    turned.save(upright, "JPEG", quality=95, exif=exif)
    clear = np.dstack([three, np.full(three.shape[:2], 99, np.uint8)])
    deep = Image.fromarray(one[..., 0].astype(np.uint16) * 16)
    file = io.BytesIO()
    deep.save(file, "PNG")
    palette = io.BytesIO()
    Image.fromarray(one).quantize(64).save(palette, "GIF")
    return {
        "jpeg": encoded(one, quality=95),
        "upright": upright.getvalue(),
        "clear": encoded(clear, "PNG"),
        "grey": encoded(two[..., 0], "PNG"),
        "deep": file.getvalue(),
        "palette": palette.getvalue(),
        "webp": encoded(one, "WEBP", lossless=True),
        "narrow": encoded(one[:, :9], "PNG"),
    }


def model_of(folder):
    return folder / "1" / "model.onnx"


@pytest.mark.parametrize("name", files())
def test_the_clients_decoder_does_what_training_does(contract, name):
    content = files()[name]
    rgb = decode_image(content)
    for what, how in (("pooled", "evaluation"), ("groups", "stretched")):
        found = square_of(content, contract, what)
        assert found.shape == (64, 64, 3) and found.dtype == np.uint8
        off = np.abs(found.astype(int) - square(rgb, 64, how))
        # Resized whole and then cut here, the other way round there: roundings differ.
        assert off.max() <= (0 if how == "stretched" else 2) and np.mean(off) < 0.1


def asked(written, name, content):
    """Answer of a model of `savedmodel/`."""
    version = written / "savedmodel" / f"slotcon_{name}" / "1" / "model.savedmodel"
    served = tf.saved_model.load(str(version))
    return served.signatures[name](tf.constant(content))


@pytest.mark.slow
def test_a_saved_model_of_triton_has_what_was_asked_for(written):
    small, large = files()["jpeg"], encoded(np.zeros((200, 200, 3), np.uint8), "PNG")
    for name in ("embed", "embed_whitened", "objects"):
        found = asked(written, name, [small, large])
        assert found["ok"].numpy().tolist() == [True, False]  # by max_pixels
        card = written / "savedmodel" / f"slotcon_{name}" / "1" / "model.savedmodel"
        card = json.loads((card / CARD_FILE).read_text())
        assert card["license"] == "CC0-1.0"
        assert card["signatures"].keys() == {name}
        if name == "embed_whitened":
            lengths = np.linalg.norm(found["whitened"], axis=-1)
            np.testing.assert_allclose(lengths, [1, 0], atol=1e-5)
        if name == "objects":
            assert found["vector"].shape[1] == 3
    # What clients of ONNX files must do is of each version's own.
    for path in (written / "onnx").glob("*/1"):
        kept = (path / "contract.json").read_text()
        assert kept == (written / "contract.json").read_text()


@pytest.mark.parametrize("name", ["serving_default", "pyramid"])
def test_repositories_of_saved_models_take_files(tmp_path, name):
    given = config(tmp_path, format="triton", signatures=("embed", name))
    with pytest.raises(SettingError, match=f"must take files.*signatures={name}"):
        export_elsewhere(small_model(), given, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_runtime_gives_the_served_numbers(written, contract):
    content = list(files().values())
    exact = asked(written, "embed", content)
    images = np.stack([square_of(x, contract) for x in content])
    session = runtime.InferenceSession(model_of(written / "onnx" / "slotcon_pooled"))
    (pooled,) = session.run(["pooled"], {"image": images})
    found = distance(pooled, exact["pooled"].numpy())
    # The network's answers are equal; a fifth of the graph's pixels are a grey level
    # off Pillow's, and these are small, smooth pictures.
    assert found["relative_error"] < 0.03 and found["smallest_cosine"] > 0.999
    whole = np.stack([square_of(x, contract, "groups") for x in content])
    session = runtime.InferenceSession(model_of(written / "onnx" / "slotcon_groups"))
    winners, confidence = session.run(["assignments", "confidence"], {"image": whole})
    served = serve(load_trained(CHECKPOINT)[0], options=ServingOptions(64, 48))
    exact = served.groups(tf.constant(content))
    # Of equal pixels all are equal (contract.json); here a fifth is a grey level off.
    assert np.mean(winners == exact["assignments"]) > 0.9
    assert np.mean(np.abs(confidence - exact["confidence"])) < 0.05


@pytest.mark.slow
def test_distances_are_measured_and_told(written):
    found = json.loads((written / "contract.json").read_text())["distance"]
    assert found["images"] == FEWEST
    assert {"encoder", "pooled", "pooled_normalized", "groups"} < found.keys()
    assert found["pooled"]["relative_error"] < 1e-5
    assert found["groups"]["equal_assignments"] > 0.999
    text = (written / "README.md").read_text()
    assert "64 x 64" in text and "73" in text and "not measured" not in text


@pytest.mark.slow
def test_repositories_are_what_triton_reads(written):
    model_config_pb2 = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="pip install tritonclient"
    )
    seen = set()
    for path in sorted(written.glob("*/*/config.pbtxt")):
        found = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        assert found.name == path.parent.name and found.max_batch_size == 4
        assert not found.HasField("dynamic_batching")
        assert all(port.dims for port in (*found.input, *found.output))
        if found.backend == "onnxruntime":
            graph = runtime.InferenceSession(model_of(path.parent))
            assert [x.name for x in graph.get_inputs()] == [x.name for x in found.input]
            assert list(found.input[0].dims) == [64, 64, 3]
        else:
            assert found.platform == "tensorflow_savedmodel"
            assert found.parameters["TF_SIGNATURE_DEF"].string_value in path.parent.name
            assert found.input[0].data_type == model_config_pb2.TYPE_STRING
            assert found.input[0].HasField("reshape")
        seen.add(path.parent.parent.name)
    assert seen == {"onnx", "savedmodel"}


@pytest.mark.slow
def test_the_inference_service_is_what_kserve_has(written):
    yaml = pytest.importorskip("yaml", reason="parses it")
    found = yaml.safe_load((written / "inference_service.yaml").read_text())
    assert found == yaml.safe_load(inference_service("slotcon", "gs://a/onnx"))
    model = found["spec"]["predictor"]["model"]
    assert model["protocolVersion"] == "v2" and model["storageUri"] == "gs://a/onnx"
    # A repository of several models, which the runtime of this format takes.
    assert model["modelFormat"] == {"name": "triton", "version": "2"}
    if not importlib.util.find_spec("kserve"):
        pytest.skip("pip install kserve")
    # On its own: its messages have the names of Triton's client.
    run(sys.executable, "-c", KSERVE, json.dumps(found))


@pytest.mark.slow
def test_versions_count_up_and_batches_have_one_size(tmp_path, capsys):
    model = small_model()
    options = ServingOptions(image_size=32, signatures=("image_bytes", "groups"))
    version = export_model(
        model, tmp_path, options=options, warmup_batches=(1, 8), batching=True
    )
    text = (version / PARAMETERS_FILE).read_text()
    assert "allowed_batch_sizes: 8\n" in text and "max_batch_size { value: 8 }" in text
    loaded = tf.saved_model.load(str(version))
    assert set(loaded.signatures) == {"image_bytes", "groups"}
    plain = ServingOptions(image_size=32)
    with pytest.raises(ValueError, match="serving_default, pyramid, which take any"):
        export_model(model, tmp_path, options=plain, warmup_batches=[1], batching=True)
    with pytest.raises(ValueError, match="`signatures` must be of serving_default, im"):
        export_model(model, tmp_path, options=ServingOptions(signatures=("a",)))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
