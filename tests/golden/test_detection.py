"""Parity with detectron2: operations, losses, steps, inference (detection_case.py)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.detection.anchors import SIZES, STRIDES, cell_anchors, level_anchors
from slotcon_tf.detection.boxes import (
    ROI_WEIGHTS,
    RPN_WEIGHTS,
    decode,
    encode,
    pairwise_iou,
)
from slotcon_tf.detection.detections import select_detections
from slotcon_tf.detection.inference import Detector
from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.mask_targets import mask_targets
from slotcon_tf.detection.matching import match
from slotcon_tf.detection.paste import paste_masks
from slotcon_tf.detection.proposals import select_proposals
from slotcon_tf.detection.roi_align import level_of, pool_regions, roi_align
from slotcon_tf.detection.suppression import suppress
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.precise import PreciseStatistics
from tests.support.detection_case import (
    described,
    edges_of,
    evenly,
    image,
    padded,
    recorded,
    recorded_model,
    training_batch,
)
from tests.support.golden_case import draw

# float64 against float64: what is left is the order of summation. Seen: 3e-13 in
# losses, 2e-13 in the state after three steps, 1e-9 in boxes of 500 pixels.
LOSSES, STATE, BOXES, SCORES = 1e-11, 1e-11, 1e-7, 1e-9
# float32. What detectron2's own is off by (noise.json): losses 5e-7, 3e-6, 2.4e-4,
# median gradients 6e-7, 7e-4, 2e-2, scores 3e-6. Seen here, with oneDNN's AVX-512 and
# AVX2 kernels and without: losses 4e-7, 2e-5, 1.2e-3, gradients 4e-6, 2e-3, 2e-2,
# scores 1.3e-5: chance decides which ReLU flips. About three times that are allowed.
# Absolute in losses, of each step; relative in gradients and in state.
FLOAT32_LOSSES = (1.5e-6, 6e-5, 4e-3)
FLOAT32_GRADIENTS = (1.5e-5, 6e-3, 0.06)  # the median
FLOAT32_STATE = (6e-6, 4e-4, 6e-3)
FLOAT32_SCORES, FLOAT32_BOXES, FLOAT32_MASKS = 3e-5, 2e-3, 1e-4


@pytest.fixture
def float64():
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def of(name):
    """An array of ops.npz as a tensor."""
    return tf.constant(recorded("ops")[name])


def test_anchors():
    ops = recorded("ops")
    height, width = ops["anchors/padded_hw"]
    for level, (size, stride) in enumerate(zip(SIZES, STRIDES, strict=True)):
        np.testing.assert_array_equal(cell_anchors(size), ops["anchors/cell"][level])
        shape = (-(-int(height) // stride), -(-int(width) // stride))
        found = level_anchors(*shape, stride, size, dtype="float64")
        np.testing.assert_array_equal(found, ops[f"anchors/p{level + 2}"])


@pytest.mark.parametrize(
    ("name", "weights"), [("rpn", RPN_WEIGHTS), ("roi", ROI_WEIGHTS)]
)
def test_box_coder(name, weights):
    boxes, targets, deltas = (of(f"coder/{x}") for x in ("src", "tgt", "deltas"))
    close = {"rtol": 1e-13, "atol": 1e-11}
    found = encode(boxes, targets, weights)
    np.testing.assert_allclose(found, of(f"coder/{name}/encode"), **close)
    found = decode(boxes, tf.reshape(deltas, (-1, 3, 4)), weights)
    want = tf.reshape(of(f"coder/{name}/decode"), (-1, 3, 4))
    np.testing.assert_allclose(found, want, **close)
    found = decode(boxes, deltas[:, :4], weights)
    np.testing.assert_allclose(found, of(f"coder/{name}/decode4"), **close)


def test_overlaps():
    found = pairwise_iou(of("iou/boxes1"), of("iou/boxes2"))
    np.testing.assert_allclose(found, of("iou/iou"), rtol=0, atol=1e-15)


MATCHERS = {"rpn": (0.3, 0.7, True), "roi": (0.5, 0.5, False)}


@pytest.mark.parametrize("case", ["matrix", "zero_row", "empty"])
@pytest.mark.parametrize("kind", MATCHERS)
def test_matching(case, kind):
    low, high, keeps_best = MATCHERS[kind]
    overlap = tf.zeros((0, 20), tf.float64)
    if case != "empty":
        overlap = of(f"match/{case}/quality")
    index, label = match(overlap, low, high, keeps_best=keeps_best)
    np.testing.assert_array_equal(index, of(f"match/{case}/{kind}/index"))
    np.testing.assert_array_equal(label, of(f"match/{case}/{kind}/label"))
    # Rows that are no ground truths change nothing, wherever they stand.
    valid = tf.concat([[False], tf.ones(len(overlap), tf.bool), [False]], 0)
    more = tf.pad(overlap, [[1, 1], [0, 0]], constant_values=0.9)
    moved, same = match(more, low, high, valid=valid, keeps_best=keeps_best)
    np.testing.assert_array_equal(same, label)
    if case != "empty":
        np.testing.assert_array_equal(moved, index + 1)


def test_matching_of_anchors():
    anchors = tf.concat([of(f"anchors/p{level}") for level in range(2, 7)], axis=0)
    overlap = pairwise_iou(of("match/anchors/gt"), anchors)
    index, label = match(overlap, 0.3, 0.7, keeps_best=True)
    np.testing.assert_array_equal(index, of("match/anchors/index"))
    np.testing.assert_array_equal(label, of("match/anchors/label"))


CASES = ("random", "ties", "threshold", "group_400", "group_1200", "group_ties")


@pytest.mark.parametrize(
    ("case", "jit"), [*((case, False) for case in CASES), ("group_1200", True)]
)
def test_suppression(case, jit):
    ops = recorded("ops")
    order = np.argsort(-ops[f"nms/{case}/scores"], kind="stable")
    boxes = tf.constant(ops[f"nms/{case}/boxes"][order])
    groups = ops.get(f"nms/{case}/group", np.zeros(len(order), np.int64))[order]
    run = tf.function(suppress, autograph=False, jit_compile=jit)
    for threshold in (0.5, 0.7):
        stays = run(boxes, threshold, groups=tf.constant(groups)).numpy()
        want = ops[f"nms/{case}/keep_{threshold}"]
        np.testing.assert_array_equal(order[stays], want)
        first = run(boxes, threshold, groups=tf.constant(groups), limit=5).numpy()
        np.testing.assert_array_equal(order[first][:5], want[:5])


@pytest.mark.parametrize(("case", "before", "after"), [("a", 100, 60), ("b", 999, 640)])
@pytest.mark.parametrize("number", [0, 1])
def test_selection_of_proposals(case, before, after, number):
    ops = recorded("ops")
    boxes = [ops[f"select/boxes_{level}"][number] for level in range(3)]
    logits = [ops[f"select/logits_{level}"][number] for level in range(3)]
    want, scores = (ops[f"select/{case}/{x}_{number}"] for x in ("boxes", "logits"))
    if case == "b" and number == 0:
        # The file's input is that of the case `nonfinite`: two boxes are spoilt in it.
        known = np.isin(scores, np.concatenate(logits))
        known &= scores != logits[2][1]
        assert np.count_nonzero(~known) == 2
        want, scores = want[known], scores[known]
    size = ops["select/image_hw"][number]
    found, found_scores, there = select_proposals(
        boxes, logits, size, before=before, after=after
    )
    np.testing.assert_array_equal(found[there], want)
    np.testing.assert_array_equal(found_scores[there], scores)


def test_selection_leaves_out_what_is_not_finite():
    ops = recorded("ops")
    boxes = [ops[f"select/boxes_{level}"][0] for level in range(3)]
    logits = [ops[f"select/logits_{level}"][0] for level in range(3)]
    assert np.isinf(boxes[2][1, 2]) and np.isnan(logits[2][2])
    size = ops["select/image_hw"][0]
    found, scores, there = select_proposals(boxes, logits, size, before=100, after=60)
    np.testing.assert_array_equal(found[there], ops["select/nonfinite/boxes_0"])
    np.testing.assert_array_equal(scores[there], ops["select/nonfinite/logits_0"])


@pytest.mark.parametrize("count", [20, 100])
@pytest.mark.parametrize("jit", [False, True])
def test_selection_of_detections(count, jit):
    run = tf.function(select_detections, autograph=False, jit_compile=jit)
    boxes = tf.reshape(of("infer/boxes"), (90, 4, 4))
    scores, size = of("infer/scores")[:, :-1], of("infer/image_hw")
    found = run(boxes, scores, size, count=count)
    assert found.there.numpy().all()
    for name in ("boxes", "scores", "classes", "rows"):
        np.testing.assert_array_equal(
            getattr(found, name), of(f"infer/top{count}/{name}")
        )


def test_a_detection_that_is_not_finite_drops_out_whole():
    boxes = recorded("ops")["infer/boxes"].copy()
    boxes[4, 7] = np.nan
    scores, size = of("infer/scores")[:, :-1], of("infer/image_hw")
    found = select_detections(boxes.reshape(90, 4, 4), scores, size, count=20)
    np.testing.assert_array_equal(found.scores, of("infer/nonfinite_row4/scores"))
    rows = found.rows.numpy()
    # The recorded rows are of those that are left.
    np.testing.assert_array_equal(rows - (rows > 4), of("infer/nonfinite_row4/rows"))


def test_levels():
    boxes = of("levels/boxes")
    np.testing.assert_array_equal(level_of(boxes) - 2, of("levels/level"))
    found = level_of(tf.cast(boxes, tf.float32)) - 2
    np.testing.assert_array_equal(found, of("levels/level_f32"))


def channels_last(name, shape):
    return tf.constant(draw(2202, name, shape).transpose(0, 2, 3, 1).astype(np.float64))


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("bins", [7, 14])
@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_roi_align(stride, bins, fixed_shapes):
    case = recorded("roi")
    boxes, images = (tf.constant(case[f"roi/{x}"]) for x in ("boxes", "image"))
    maps = channels_last(f"roi_x_{stride}", (2, 2, 256 // stride, 320 // stride))
    upstream = channels_last(f"roi_g_{stride}_{bins}", (len(boxes), 2, bins, bins))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        found = roi_align(
            maps, boxes, images, stride=stride, bins=bins, fixed_shapes=fixed_shapes
        )
        total = tf.reduce_sum(found * upstream)
    want = case[f"roi/s{stride}/out{bins}"]
    found = found.numpy().transpose(0, 3, 1, 2)[:, : want.shape[1]]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-13)
    gradient = tape.gradient(total, maps).numpy().transpose(0, 3, 1, 2)
    want = case[f"roi/s{stride}/grad{bins}"]
    np.testing.assert_allclose(gradient, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_regions_are_pooled_from_their_level(fixed_shapes):
    case = recorded("roi")
    boxes, images = (tf.constant(case[f"pooler/{x}"]) for x in ("boxes", "image"))
    strides = {f"P{level}": 2**level for level in range(2, 6)}
    maps = {
        name: channels_last(f"roi_x_{stride}", (2, 2, 256 // stride, 320 // stride))
        for name, stride in strides.items()
    }
    upstream = channels_last("roi_pool_g", (len(boxes), 2, 7, 7))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        found = pool_regions(maps, boxes, images, bins=7, fixed_shapes=fixed_shapes)
        total = tf.reduce_sum(found * upstream)
    want = case["pooler/out7"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-13)
    for name, gradient in tape.gradient(total, maps).items():
        want = case[f"pooler/grad_s{strides[name]}"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(gradient, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [28, 14])
@pytest.mark.parametrize("jit", [False, True])
def test_mask_targets(size, jit):
    case = described("masks")["polygon"]
    edges = max(sum(len(p) // 2 for p in ps) for ps in case["polygons"]) + 1
    polygons = [edges_of(ps, edges) for ps in case["polygons"]]
    inputs = [tf.constant(np.stack(x)) for x in zip(*polygons, strict=True)]
    run = tf.function(mask_targets, autograph=False, jit_compile=jit)
    found = run(*inputs, tf.constant(case["boxes"]), size, num_parts=4).numpy()
    packed = recorded("masks")[f"polygon/target{size}"]
    want = np.unpackbits(packed, axis=1)[:, : size**2].reshape(found.shape)
    # XLA does not round a product before it is added to: at most a line that runs
    # exactly between two cells differs. Seen: 1 and 2 cells.
    assert np.count_nonzero(found != want) <= (5 if jit else 0)


def test_pasting():
    case = recorded("masks")
    height, width = case["paste/image_hw"]
    found = paste_masks(case["paste/probs"], case["paste/boxes"], height, width)
    packed = np.unpackbits(case["paste/masks"], axis=1)[:, : height * width]
    np.testing.assert_array_equal(found, packed.reshape(found.shape))


def losses_and_gradients(model, batch):
    with tf.GradientTape() as tape:
        loss, found = model.compute_losses(batch, choices=evenly)
    return found, tape.gradient(loss, model.trainable_variables)


def norms_of(gradients, model, entries):
    """In the recorded order of parameters."""
    names = {id(entry.variable): name for name, entry in entries.items()}
    norms = {
        names[id(v)]: float(tf.norm(g))
        for v, g in zip(model.trainable_variables, gradients, strict=True)
    }
    return np.array([norms[name] for name in described("det")["param_keys"]])


def train(model, optimizer, dtype="float64"):
    """The recorded three steps; yields each one's number, losses and gradients."""
    for number, rate in enumerate(recorded("det")["lr"]):
        # Not traced: every step has images of another size.
        found, gradients = losses_and_gradients(model, training_batch(number, dtype))
        optimizer.learning_rate.assign(rate)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        yield number, [float(x) for x in found.values()], gradients


def measure_anew(model, steps, dtype="float64"):
    precise = PreciseStatistics(model)
    for step in steps:
        with precise.gathering():
            model.compute_losses(training_batch(step, dtype), choices=evenly)
    precise.apply()


def check_inference(
    model, case, dtype="float64", boxes=BOXES, scores=SCORES, masks=1e-8
):
    arrays = recorded("det")
    for number, item in enumerate(described("det")["eval_images"]):
        pixels = image(f"eval_image{number}", *item["size_hw"])
        assert pixels.sum(dtype=np.int64) == item["image_sum"]
        pixels, size = padded([pixels], dtype), tf.constant([item["size_hw"]])
        found, probabilities = model.detect(pixels, size)
        want = {
            name: arrays[f"{case}/image{number}/{name}"]
            for name in ("boxes", "scores", "classes", "mask_probs")
        }
        there = found.there[0].numpy()
        np.testing.assert_array_equal(there[: len(want["scores"])], True)
        assert np.count_nonzero(there) == len(want["scores"])
        np.testing.assert_array_equal(found.classes[0][there], want["classes"])
        for name, close in (("boxes", boxes), ("scores", scores)):
            values = getattr(found, name)[0][there]
            np.testing.assert_allclose(values, want[name], rtol=0, atol=close)
        some = np.reshape(want["mask_probs"], (-1, 28, 28))
        found = probabilities[0][: len(some)]
        np.testing.assert_allclose(found, some, rtol=0, atol=masks)


def check_own_pixels(model, case):
    """Whole images, one graph for all sizes: boxes and masks in their own pixels."""
    detector, arrays = Detector(model), recorded("det")
    for number, item in enumerate(described("det")["eval_images"]):
        pixels = image(f"eval_image{number}", *item["size_hw"]).transpose(1, 2, 0)
        found = detector.in_resized(pixels, item["output_hw"])
        want = {
            name: arrays[f"{case}/image{number}/final_{name}"]
            for name in ("boxes", "scores", "classes", "mask_area")
        }
        np.testing.assert_array_equal(found.classes, want["classes"])
        for name, close in (("boxes", BOXES), ("scores", SCORES)):
            values = getattr(found, name)
            np.testing.assert_allclose(values, want[name], rtol=0, atol=close)
        masks = paste_masks(found.masks, found.boxes, *item["output_hw"])
        np.testing.assert_array_equal(masks.sum(axis=(1, 2)), want["mask_area"])


@pytest.mark.slow
def test_first_losses_gradients_and_inference(float64):
    arrays = recorded("det")
    model, entries = recorded_model()
    found, gradients = losses_and_gradients(model, training_batch(0))
    values = [float(x) for x in found.values()]
    np.testing.assert_allclose(values, arrays["losses"][0], rtol=0, atol=LOSSES)
    norms = norms_of(gradients, model, entries)
    np.testing.assert_allclose(norms, arrays["grad_norm"][0], rtol=1e-9, atol=1e-11)

    measure_anew(model, [0])
    assert_statistics(entries, "init_stats")
    check_inference(model, "init_eval")
    check_own_pixels(model, "init_eval")


def assert_statistics(entries, name):
    keys = described("det")["stats_keys"]
    found = np.concatenate([entries[key].to_torch().ravel() for key in keys])
    np.testing.assert_allclose(found, recorded("det")[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_three_steps_statistics_and_inference(float64):
    case, arrays = described("det"), recorded("det")
    model, entries = recorded_model()
    optimizer = SGD(0.0, l2=1e-4, decays_norms=False)
    model.compile(optimizer=optimizer)
    for step, losses, _ in train(model, optimizer):
        np.testing.assert_allclose(losses, arrays["losses"][step], rtol=0, atol=LOSSES)
        norms = [np.linalg.norm(entries[key].to_torch()) for key in case["keys"]]
        want = arrays["state_norm"][step + 1]
        np.testing.assert_allclose(norms, want, rtol=STATE, atol=STATE)
    measure_anew(model, [0, 1])
    assert_statistics(entries, "stats")
    check_inference(model, "eval")


@pytest.mark.slow
def test_float32_is_as_close_as_the_original(monkeypatch):
    """With the recorded proposals: one swapped rank of them changes the sample."""
    case, arrays = described("det"), recorded("det")
    optimizer = SGD(0.0, l2=1e-4, decays_norms=False)

    def proposed(self, anchors, logits, deltas, sizes, counts):
        step = int(optimizer.iterations)
        boxes, scores = (
            tf.constant(
                [arrays[f"step{step}/proposals/{x}_{i}"] for i in range(2)], "float32"
            )
            for x in ("boxes", "logits")
        )
        return boxes, scores, tf.ones_like(scores, tf.bool)

    model, entries = recorded_model()
    close = {"boxes": FLOAT32_BOXES, "scores": FLOAT32_SCORES}
    with monkeypatch.context() as patched:
        patched.setattr(MaskRCNN, "_proposed", proposed)
        measure_anew(model, [0], "float32")
    check_inference(model, "init_eval", "float32", masks=FLOAT32_MASKS, **close)

    monkeypatch.setattr(MaskRCNN, "_proposed", proposed)
    model, entries = recorded_model()
    model.compile(optimizer=optimizer)
    for step, losses, gradients in train(model, optimizer, "float32"):
        close = FLOAT32_LOSSES[step]
        np.testing.assert_allclose(losses, arrays["losses"][step], rtol=0, atol=close)
        want = arrays["grad_norm"][step]
        off = np.abs(norms_of(gradients, model, entries) / want - 1)[want > 0.1]
        assert np.median(off) < FLOAT32_GRADIENTS[step]
        norms = [np.linalg.norm(entries[key].to_torch()) for key in case["keys"]]
        want = arrays["state_norm"][step + 1]
        np.testing.assert_allclose(norms, want, rtol=FLOAT32_STATE[step], atol=1e-6)
