"""What is exported answers as the model in memory, to the last bad file."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export.sending import served_form
from export.server_model import warmup_requests
from slotcon_tf.images import normalize
from slotcon_tf.images.decoding import BadImage, decode_image
from slotcon_tf.interop import load_slotcon
from slotcon_tf.method.upsampled import upsampled_confidence
from slotcon_tf.serving.archive import export_model, serve
from slotcon_tf.serving.decoding import REASONS, decode_batch
from slotcon_tf.serving.onnx_file import export_onnx
from slotcon_tf.serving.signatures import (
    ServingOptions,
    largest_slots,
)
from slotcon_tf.serving.warmup import WARMUP_FILE
from tests.support.command import SAVED_MODEL_CLI, modules
from tests.support.golden_case import CHECKPOINT, GOLDEN
from tests.support.picture_case import encoded, pictures
from tests.support.saved_case import OPTIONS, files, session_answers

OF_FILES = ("image_bytes", "embed", "groups", "objects", "instances")


@pytest.fixture(scope="module")
def model():
    return load_slotcon(CHECKPOINT)[0]


@pytest.fixture(scope="module")
def version(exported):
    return exported


@pytest.fixture(scope="module")
def in_session(version):
    return session_answers(version)


def inputs():
    images, (content, _) = pictures(), files()
    by_image = dict.fromkeys(("serving_default", "pyramid"), images)
    return by_image | dict.fromkeys(OF_FILES, content)


@pytest.mark.slow
def test_every_signature_equals_the_model_in_memory(model, version, in_session):
    answer, names = in_session
    served = serve(model, options=OPTIONS)
    assert names == {*served.signatures(), "__saved_model_init_op"}
    loaded = tf.saved_model.load(str(version))
    for name, (function, _) in served.signatures().items():
        value = inputs()[name]
        truth = function(tf.constant(value))
        by_session = answer(name, value)
        by_function = loaded.signatures[name](tf.constant(value))
        assert set(truth) == set(by_session) == set(by_function)
        for key, expected in truth.items():
            for found in (by_session[key], by_function[key].numpy()):
                assert found.dtype == expected.dtype.as_numpy_dtype, (name, key)
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=key)
    # The reusable form: what is loaded can be called.
    again = loaded(tf.constant(pictures()))
    np.testing.assert_allclose(
        again["map"], served.features(tf.constant(pictures()))["map"], atol=1e-5
    )
    # And as the model itself, before its normalisations were folded.
    plain = model(normalize(tf.cast(pictures(), tf.float32)))["map"]
    np.testing.assert_allclose(again["map"], plain, atol=1e-4 * np.abs(plain).max())


def test_bad_images_cost_nobody_else(version):
    content, reasons = files()
    answer = tf.saved_model.load(str(version)).signatures
    alone = [i for i, reason in enumerate(reasons) if reason == "ok"]
    for name in OF_FILES:
        found = answer[name](image_bytes=tf.constant(content))
        assert [REASONS[i] for i in found["reason"].numpy()] == reasons
        np.testing.assert_array_equal(found["ok"], [r == "ok" for r in reasons])
        for key, value in found.items():
            for i, reason in enumerate(reasons):
                if reason != "ok" and key != "reason":
                    assert not np.any(value[i]), (name, key, reason)
        # Two JPEG decoders would differ; these are the same.
        single = answer[name](image_bytes=tf.constant([content[i] for i in alone]))
        for key, value in single.items():
            np.testing.assert_allclose(value, found[key].numpy()[alone], atol=1e-5)


def test_an_empty_batch_has_no_rows(in_session):
    answer, names = in_session
    for name in names - {"__saved_model_init_op"}:
        value = inputs()[name]
        whole = value if isinstance(value, np.ndarray) else np.array(value, object)
        found = answer(name, whole[:0])
        assert found and all(len(value) == 0 for value in found.values()), name
    nothing = np.zeros((2, 0, 64, 3), np.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a pixel high and wide"):
        answer("serving_default", nothing)


def test_preprocessing_is_evaluations():
    """torchvision's Resize(256) and CenterCrop(224), recorded; within a grey level."""
    recorded = np.load(GOLDEN / "eval_preprocessing.npz")
    content = [encoded(recorded["big"], "PNG")]
    found, _ = decode_batch(content, 224, crop=True, max_pixels=10**6)
    assert np.abs(found[0] - recorded["evaluated"].astype(np.float32)).max() <= 1


@functools.cache
def decoder(max_pixels):
    """`decode_batch` of images of any size as one graph, as in a SavedModel."""
    return tf.function(
        functools.partial(decode_batch, size=0, crop=False, max_pixels=max_pixels),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )


def decode_alone(data):
    found, reason = decoder(10**8)([data])
    return found.numpy()[0], REASONS[int(reason[0])]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["II", "MM"])
def test_orientations(orientation, order):
    exif = Image.Exif()
    exif.endian = {"II": "<", "MM": ">"}[order]
    exif[0x010F] = "maker"
    exif[0x0112] = orientation
    data = encoded(pictures()[0], quality=95, exif=exif.tobytes())
    np.testing.assert_array_equal(decode_alone(data)[0], decode_image(data))


@pytest.mark.slow
def test_sizes_and_channels():
    """One channel to four, odd sizes; GIF's first frame; WebP of three kinds."""
    colour = pictures()[0]
    alpha = np.dstack([colour, np.full(colour.shape[:2], 128, np.uint8)])
    cases = [
        encoded(colour[..., 0], "PNG"),
        encoded(alpha, "PNG"),
        encoded(colour[..., 0]),
        encoded(colour, "BMP"),
        encoded(colour, "GIF"),
        encoded(colour, "WEBP", lossless=True),
        encoded(alpha, "WEBP", lossless=True),
        encoded(colour[:7, :5], "WEBP"),
        encoded(colour[:1, :1], "PNG"),
    ]
    for data in cases:
        found, reason = decode_alone(data)
        assert reason == "ok"
        assert np.abs(found - decode_image(data)).max() <= 1
    for data in cases[:6]:
        too_small = decoder(60 * 80 - 1)([data])[1]
        assert REASONS[int(too_small[0])] == "too many pixels"
        assert REASONS[int(decoder(colour.size)([data])[1][0])] == "ok"


def test_the_developers_awkward_files(shared_folder):
    """What training decodes is decoded alike; TIFF and AVIF as they are sent."""
    nasty = shared_folder / "data" / "nasty"
    decode = decoder(5 * 10**7)
    for entry in json.loads((nasty / "manifest.json").read_text())["files"]:
        data = (nasty / entry["file"]).read_bytes()
        found, reason = decode(tf.constant([data]))
        reason = REASONS[int(reason[0])]
        try:
            truth = decode_image(data, 5 * 10**7)
        except BadImage:
            assert reason != "ok" or entry["expect"] == "decode_or_skip"
            continue
        if entry["file"].endswith((".tif", ".avif")):
            assert reason == "not served: send it as an 8-bit PNG"
            found, reason = decode(tf.constant([served_form(data)]))
            reason = REASONS[int(reason[0])]
        assert reason == "ok", entry
        assert np.abs(found[0] - truth).max() <= 1, entry


def test_chunks_of_prototypes_change_nothing():
    logits = tf.random.stateless_uniform((2, 5, 7, 150), (1, 2), -1, 1)
    winner, confidence = upsampled_confidence(logits, [20, 20], 0.07)
    large = tf.image.resize(logits, [20, 20])
    np.testing.assert_array_equal(winner, tf.argmax(large, axis=-1))
    truth = tf.reduce_max(tf.nn.softmax(large / 0.07), axis=-1)
    np.testing.assert_allclose(confidence, truth, rtol=1e-4)


def test_objects_are_the_slots_of_the_map():
    """A left half, a corner and the rest, whose places and vectors are known."""
    logits = np.full((1, 4, 8, 6), -1.0, np.float32)
    logits[0, :, :4, 2] = 1.0
    logits[0, 3, 7, 5] = 1.0
    logits[0, :, 4:, 0] += 1.5  # 1 in the corner, where 5 wins no more
    logits[0, 3, 7, 0] = 0.0
    projected = np.zeros((1, 4, 8, 3), np.float32)
    projected[0, :, :4, 0] = 3.0
    projected[0, :, 4:, 1] = 2.0
    found = largest_slots(tf.constant(projected), tf.constant(logits), 4, 0.01)
    found = {name: value.numpy()[0] for name, value in found.items()}
    np.testing.assert_array_equal(found["valid"], [True, True, True, False])
    np.testing.assert_array_equal(found["prototype"], [2, 0, 5, 0])
    np.testing.assert_allclose(found["area"], [16 / 32, 15 / 32, 1 / 32, 0])
    np.testing.assert_allclose(
        found["box"],
        [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [7 / 8, 3 / 4, 1, 1], [0, 0, 0, 0]],
    )
    np.testing.assert_allclose(
        found["vector"], [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], atol=1e-3
    )


@pytest.mark.slow
def test_warm_up_requests_are_answered(version, in_session):
    """Those of the client: its outputs, and all, which REST asks for."""
    answer, names = in_session
    asked = []
    for request in warmup_requests(version / WARMUP_FILE):
        ((_, value),) = request.inputs.items()
        value = tf.make_ndarray(value)
        name, outputs = request.model_spec.signature_name, tuple(request.output_filter)
        asked.append((name, len(value), outputs))
        found = answer(name, value, outputs)
        assert all(found.get("ok", [True])) and set(outputs) <= set(found)
    assert len(asked) == len(set(asked))
    assert {name for name, *_ in asked} == names - {"__saved_model_init_op"}
    fetched = ("pooled", "ok", "reason")  # as `FeatureClient` asks
    for size in (1, 3):
        for name in OF_FILES:
            assert (name, size, ()) in asked
        assert ("image_bytes", size, fetched) in asked
        assert ("embed", size, fetched) in asked
    # Pixels come in any size: one request makes the graph ready.
    assert ("serving_default", 1, ()) in asked
    assert (version / WARMUP_FILE).stat().st_size < 200_000


@pytest.mark.slow
def test_saved_model_cli(version, tmp_path):
    """`show --all`, and `run` of every signature."""
    np.save(tmp_path / "images.npy", pictures())
    np.save(tmp_path / "files.npy", np.array(files()[0][:1], dtype=np.bytes_))
    commands = {"show": ["show", "--all"]}
    for name, value in inputs().items():
        key = "image" if isinstance(value, np.ndarray) else "image_bytes"
        data = tmp_path / ("images.npy" if key == "image" else "files.npy")
        commands[name] = ["run", "--tag_set=serve", f"--signature_def={name}"]
        commands[name].append(f"--inputs={key}={data}")
    lines = ([SAVED_MODEL_CLI, *w, f"--dir={version}"] for w in commands.values())
    done = dict(zip(commands, modules(*lines), strict=True))
    assert "inputs['image_bytes']" in done["show"].stdout
    keys = {"serving_default": 2, "pyramid": 4, "image_bytes": 4, "groups": 4}
    for name, count in {**keys, "embed": 3, "objects": 7, "instances": 9}.items():
        assert done[name].stdout.count("Result for output key") == count, name


@pytest.mark.slow
def test_a_single_image_keeps_its_size(model, tmp_path):
    options = ServingOptions(image_size=0, mask_size=32)
    version = export_model(model, tmp_path, options=options, warmup_batches=[1, 8])
    answer, _ = session_answers(version)
    picture, *_ = pictures()
    by_file = answer("image_bytes", [encoded(picture, "PNG")])
    by_pixels = answer("serving_default", picture[None])
    np.testing.assert_allclose(by_file["map"], by_pixels["map"], atol=1e-5)
    assert by_file["map"].shape == (1, 2, 3, 64)
    bad = answer("groups", [b"bad"])
    assert bad["assignments"].shape == (1, 32, 32) and not bad["ok"][0]
    warm = [
        value
        for r in warmup_requests(version / WARMUP_FILE)
        for value in r.inputs.values()
    ]
    assert warm and {value.tensor_shape.dim[0].size for value in warm} == {1}


@pytest.mark.slow
def test_onnx(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    export_onnx(model, tmp_path / "encoder.onnx")
    session = runtime.InferenceSession(tmp_path / "encoder.onnx")
    images = pictures().astype(np.float32)
    maps, pooled = session.run(["map", "pooled"], {"image": images})
    truth = model(normalize(tf.constant(images)))["map"].numpy()
    np.testing.assert_allclose(maps, truth, atol=1e-4 * np.abs(truth).max())
    np.testing.assert_allclose(pooled, maps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_command_line_with_int8_and_bfloat16(tmp_path):
    """From a run's folder; the distances are measured; versions count up."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, picture in enumerate(pictures(12)):
        Image.fromarray(picture).save(photos / f"{index}.png")
    flags = [f"--model={CHECKPOINT}", f"--export_dir={tmp_path / 'served'}"]
    flags += ["--image_size=64", "--batch_sizes=1"]
    quantized = [*flags, f"--calibration_images={photos}", "--quantize=int8"]
    lines = [
        [*flags, "--which=student"],
        [*quantized, "--precision=bfloat16"],
        [*flags, "--quantize=int8"],
        ["--model=none", "--export_dir=a"],
    ]
    lines = (["export.saved_model", *line] for line in lines)
    student, done, uncalibrated, missing = modules(*lines, check=False)
    for each in (student, done):
        assert each.returncode == 0, each.stderr[-2000:]
    second = tmp_path / "served" / "2"
    assert f"Written: {second}" in done.stdout
    assert sorted(p.name for p in (tmp_path / "served").iterdir()) == ["1", "2"]
    report = json.loads((second / "assets.extra" / "precision.json").read_text())
    assert 1e-4 < report["served"]["relative_error"] < 0.05
    assert report["served"]["relative_error"] < report["int8"]["relative_error"] < 0.3
    assert (second / "assets.extra" / "encoder_int8.tflite").stat().st_size > 10_000
    answer, _ = session_answers(second)
    assert answer("image_bytes", files()[0])["pooled"].dtype == np.float32
    assert uncalibrated.returncode == 2 and missing.returncode == 1
    assert "needs --calibration_images" in uncalibrated.stderr
    assert "No pretrained model: none" in missing.stderr
