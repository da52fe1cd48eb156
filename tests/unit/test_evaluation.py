"""Probes and bootstrap: against scikit-learn, by hand, and by their properties."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score, jaccard_score

from slotcon_tf import SlotCon, backbone
from slotcon_tf.data.labelled import VOID, LabelError, open_classified, open_segmented
from slotcon_tf.evaluation import classification, retrieval, segmentation_metrics, tasks
from slotcon_tf.evaluation.bootstrap import compare
from slotcon_tf.evaluation.groups import group_confusions, predict_groups
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.evaluation.linear import LinearSettings, fit_linear, linear_confusions
from slotcon_tf.evaluation.metrics import grouping_metrics
from slotcon_tf.method.upsampled import upsampled_argmax
from tests.support import labelled_case as case

QUICK = LinearSettings(steps=300, batch_size=4, learning_rate=0.03, label_stride=4)


@pytest.fixture(scope="module")
def colors_encoder():
    """Maps of 8x8 pixels' mean colours, in which classes lie apart."""
    images = keras.Input((None, None, 3))
    return keras.Model(images, keras.layers.AveragePooling2D(8)(images))


@pytest.fixture(scope="module")
def slotcon():
    keras.utils.set_random_seed(0)
    return SlotCon(
        backbone("resnet18", width=8, output_stride=8),
        total_steps=1,
        num_prototypes=70,  # more than are looked at together
        hidden_dim=16,
        projection_dim=8,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return case.folders(tmp_path_factory.mktemp("folders"))


def opened(folder, split="val", **options):
    return open_segmented("folders", folder, split, **options)


# Bootstrap


def mean(counts):
    return {"mean": float(counts[0] / counts[1])}


def rows(values):
    return np.stack([values, np.ones_like(values)], axis=1)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = compare(mean, None, rows(values), resamples=4000)["mean"]
    assert list(found) == ["trained"]
    value, low, high = found["trained"]
    error = 1.96 * values.std() / 20
    assert value == pytest.approx(values.mean())
    assert value - low == pytest.approx(error, rel=0.08)
    assert high - value == pytest.approx(error, rel=0.08)


def test_differences_are_of_pairs():
    values = np.random.default_rng(1).normal(5.0, 2.0, 100)
    found = compare(mean, rows(values), rows(values + 0.5), resamples=300)["mean"]
    assert found["difference"] == pytest.approx([0.5] * 3)  # not a wide interval
    low, high = found["trained"][1:]
    assert high - low > 0.5


def test_sparse_rows_seeds_and_no_resamples():
    dense = np.random.default_rng(2).integers(1, 9, (30, 12)).astype(float)

    def score(counts):
        return grouping_metrics(counts.reshape(3, 4).astype(np.int64))

    def scalars(counts):
        return {k: score(counts)[k] for k in ("nmi", "miou")}

    once = compare(scalars, dense, dense[::-1], resamples=50, seed=1)
    sparse = [csr_array(x) for x in (dense, dense[::-1])]
    assert compare(scalars, *sparse, resamples=50, seed=1) == once
    assert compare(scalars, dense, dense[::-1], resamples=50, seed=2) != once
    value, low, high = compare(mean, None, dense, resamples=0)["mean"]["trained"]
    assert np.isfinite(value) and np.isnan(low) and np.isnan(high)


# Inference and groups


def test_winners_are_those_of_one_argmax():
    logits = tf.random.stateless_normal([2, 5, 7, 150], seed=[0, 1])
    whole = tf.argmax(tf.image.resize(logits, [33, 41]), axis=-1)
    np.testing.assert_array_equal(upsampled_argmax(logits, [33, 41]), whole)
    assert (
        upsampled_argmax(tf.zeros([1, 2, 2, 130]), [4, 4]).numpy() == 0
    ).all()  # a tie


def test_images_of_any_size_and_their_batches(slotcon):
    rng = np.random.default_rng(0)
    sizes = [(32, 40), (32, 40), (48, 33), (32, 40)]
    images = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in sizes]
    batches = list(same_size_batches(((i, n) for n, i in enumerate(images)), 16))
    assert [list(numbers) for _, numbers in batches] == [[0, 1], [2], [3]]
    inference = Inference(slotcon)
    for some, _ in batches:
        groups = inference.groups(some)
        assert groups.shape == some.shape[:3]
        np.testing.assert_array_equal(groups, predict_groups(slotcon, some))
    finer = Inference(slotcon, scale=2.0)
    assert finer.maps(images[0][None]).shape == (1, 8, 10, 64)


def test_slots_of_inference(slotcon):
    images = np.stack([case.scene(i)[0] for i in range(2)])
    vectors, active, groups = Inference(slotcon, "student").slots(images)
    assert vectors.shape == (2, 70, 8) and active.shape == (2, 70)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(groups, Inference(slotcon, "student").groups(images))


def test_an_encoder_alone_has_no_groups(colors_encoder):
    with pytest.raises(ValueError, match="whole SlotCon model"):
        Inference(colors_encoder).groups(np.zeros((1, 16, 16, 3), np.uint8))


def test_confusions_by_image_add_up(slotcon, folder):
    data = opened(folder)
    inference = Inference(slotcon)
    counts = group_confusions(inference, data, 4, batch_size=3)
    assert counts.shape == (4, 4 * 70) and counts.sum() == 4 * 48 * 64
    image, labels = data.load(2)
    group = inference.groups(image[None])[0]
    by_hand = np.zeros((4, 70), int)
    np.add.at(by_hand, (labels, group), 1)
    np.testing.assert_array_equal(counts[[2]].toarray().reshape(4, 70), by_hand)
    task = tasks.groups_task(data, 70)
    total = np.asarray(counts.sum(axis=0))
    expected = grouping_metrics(total.reshape(4, 70))
    assert task.score(total)["nmi"] == expected["nmi"]
    np.testing.assert_array_equal(task.class_scores(total), expected["class_iou"])


# Linear segmentation


def test_segmentation_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 500)
    found = np.where(rng.random(500) < 0.6, truth, rng.integers(0, 5, 500))
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (truth, found), 1)
    got = segmentation_metrics(confusion)
    expected = jaccard_score(truth, found, average=None, labels=range(4))
    np.testing.assert_allclose(got["class_iou"][:4], expected)
    assert np.isnan(got["class_iou"][4])  # no pixel has it
    assert got["miou"] == pytest.approx(expected.mean())
    assert got["pixel_accuracy"] == pytest.approx((truth == found).mean())


def test_what_is_linear_is_learned(colors_encoder, folder):
    inference = Inference(colors_encoder)
    task = tasks.linear_task(opened(folder, "train"), opened(folder), QUICK)
    counts = task.measure(inference)
    assert counts.shape == (4, 16)
    scores = task.score(counts.sum(axis=0))
    # Not 1: a cell of the map lies on the edge of two classes.
    assert scores["miou"] > 0.9 and scores["pixel_accuracy"] > 0.95
    np.testing.assert_array_equal(counts, task.measure(inference))  # repeatable


def test_void_teaches_nothing(colors_encoder, folder):
    """Labels of one class are hidden: the others are found as before."""
    train = opened(folder, "train")
    load = train.load

    def hidden(index):
        image, labels = load(index)
        return image, np.where(labels == 2, VOID, labels).astype(np.uint8)

    train.load = hidden
    inference = Inference(colors_encoder)
    segmenter = fit_linear(inference, train, QUICK)
    counts = linear_confusions(inference, segmenter, opened(folder), 4).sum(axis=0)
    counts = counts.reshape(4, 4)
    recall = np.diag(counts) / counts.sum(axis=1)
    assert (recall[[0, 1, 3]] > 0.9).all()
    train.load = lambda index: (load(index)[0], np.full((48, 64), VOID, np.uint8))
    with pytest.raises(LabelError, match="not void"):
        fit_linear(inference, train, QUICK)


def test_the_classifier_holds_its_standardisation(colors_encoder, folder):
    train = opened(folder, "train")
    inference = Inference(colors_encoder)
    segmenter = fit_linear(inference, train, QUICK)
    maps = inference.maps(train.load(0)[0][None])
    expected = np.argmax(maps @ segmenter.kernel.numpy() + segmenter.bias, axis=-1)
    np.testing.assert_array_equal(segmenter(maps, maps.shape[1:3]), expected)


def test_images_of_several_sizes_need_a_crop(colors_encoder, tmp_path):
    case.folders(tmp_path)
    image, labels = case.scene(0, 60, 60)
    case.save(image, tmp_path / "train" / "0.png")
    case.save(labels, tmp_path / "trainannot" / "0.png")
    inference = Inference(colors_encoder)
    with pytest.raises(LabelError, match="of one size.*crop_size"):
        fit_linear(inference, opened(tmp_path, "train"), QUICK)
    fit_linear(inference, opened(tmp_path, "train", crop_size=40), QUICK)


def test_sets_of_other_classes_are_refused(folder, tmp_path):
    other = case.folders(tmp_path)
    (other / "classes.txt").write_text("0 red\n1 green\n2 blue\n3 pink\n")
    with pytest.raises(
        ValueError,
        match="same classes.*'yellow' of the former.*'pink' of",
    ):
        tasks.linear_task(opened(folder, "train"), opened(other), QUICK)


# Retrieval


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        relevant = rng.random(30) < 0.3
        relevant[rng.integers(30)] = True
        scores = rng.random(30)
        expected = average_precision_score(relevant, scores)
        ranked = relevant[np.argsort(-scores)]
        assert retrieval.average_precision(ranked) == pytest.approx(expected)
    assert retrieval.average_precision(np.array([False, True])) == 0.5


def slots(vectors, labels, images, present):
    vectors = np.array(vectors, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return retrieval.LabelledSlots(
        vectors, np.array(labels), np.array(images), np.array(present, bool)
    )


def test_retrieval_by_hand():
    queries = slots([[1, 0], [0, 1]], [0, 1], [0, 1], [[1, 0, 1], [0, 1, 0]])
    gallery = slots([[3, 1], [1, 1], [1, 3]], [1, 0, 0], [0, 0, 1], [[1, 1, 0]] * 2)
    counts = retrieval.retrieval_counts(queries, gallery, 3)
    # Query 0 sees 1, 0, 0: precisions 1/2 and 2/3. Query 1 sees 0, 0, 1: 1/3.
    precisions = retrieval.class_precisions(counts.sum(axis=0), 3)
    np.testing.assert_allclose(precisions, [7 / 12, 1 / 3, 0])  # no slot covers class 2
    got = retrieval.retrieval_metrics(counts.sum(axis=0), 3)
    assert got["map"] == pytest.approx((7 / 12 + 1 / 3) / 2)
    assert got["map_classes"] == pytest.approx((7 / 12 + 1 / 3 + 0) / 3)
    assert got["precision_at_1"] == 0


def test_slots_of_the_own_image_do_not_count():
    same = slots([[1, 0], [1, 0.1], [0, 1]], [0, 0, 1], [0, 0, 1], [[1, 0], [0, 1]])
    counts = retrieval.retrieval_counts(same, same, 2, same_set=True)
    assert counts[:, :2].sum() == 0  # nobody else has the class
    assert retrieval.retrieval_counts(same, same, 2)[0, 0] == 2


def test_labelled_slots_have_the_class_they_cover(slotcon, folder):
    data = opened(folder)
    inference = Inference(slotcon)
    found = retrieval.labelled_slots(inference, data, 4, batch_size=3)
    assert found.present.all() and found.present.shape == (4, 4)
    image, labels = data.load(3)
    _, active, groups = inference.slots(image[None])
    used = [k for k in np.flatnonzero(active[0]) if (groups[0] == k).any()]
    majority = [np.bincount(labels[groups[0] == k]).argmax() for k in used]
    np.testing.assert_array_equal(found.labels[found.images == 3], majority)
    void = retrieval.labelled_slots(inference, [(image, np.full_like(labels, VOID))], 4)
    assert len(void.labels) == 0 and not void.present.any()


# Classification


def test_neighbours_vote_by_their_cosine():
    rng = np.random.default_rng(0)
    train, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    queries = rng.normal(size=(15, 5))
    classifier = classification.nearest_neighbours(train, labels, neighbors=7)
    for query, found in zip(queries, classifier.predict(queries), strict=True):
        norms = np.linalg.norm(train, axis=1) * np.linalg.norm(query)
        cosine = train @ query / norms
        nearest = np.argsort(-cosine)[:7]
        votes = np.bincount(
            labels[nearest], np.exp(cosine[nearest] / 0.07), minlength=3
        )
        assert found == votes.argmax()
    few = classification.nearest_neighbours(train[:3], [0, 1, 2])  # fewer than 20
    np.testing.assert_array_equal(few.predict(train[:3]), [0, 1, 2])


@pytest.mark.parametrize("name", ["nearest_neighbours", "linear_classifier"])
def test_colours_are_classified(colors_encoder, tmp_path, name):
    case.class_folders(tmp_path)
    train, val = (
        open_classified("class_folders", tmp_path, split, crop_size=32)
        for split in ("train", "val")
    )
    task = tasks.classification_task(getattr(classification, name), train, val)
    counts = task.measure(Inference(colors_encoder))
    assert counts.shape == (12, 2)
    assert task.score(counts.sum(axis=0)) == {"accuracy": 1.0}
