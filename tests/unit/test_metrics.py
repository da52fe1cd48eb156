"""Metrics against scikit-learn, by hand, and by their properties."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from slotcon_tf.evaluation import confusion_matrix, grouping_metrics

SCALARS = (
    "miou",
    "pixel_accuracy",
    "miou_majority",
    "majority_accuracy",
    "nmi",
    "ari",
)


def sample(seed, classes=5, groups=8, agreement=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (4, 16, 16))
    noise = rng.integers(0, groups, labels.shape)
    return labels, np.where(rng.random(labels.shape) < agreement, labels, noise)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("agreement", [0.0, 0.5, 0.95])
def test_nmi_and_ari_are_those_of_scikit_learn(seed, agreement):
    labels, groups = sample(seed, agreement=agreement)
    got = grouping_metrics(confusion_matrix(labels, groups, 5, 8))
    flat = labels.ravel(), groups.ravel()
    assert got["nmi"] == pytest.approx(normalized_mutual_info_score(*flat), abs=1e-12)
    assert got["ari"] == pytest.approx(adjusted_rand_score(*flat), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 1, 2]),
        ([0, 1, 2], [0, 0, 0]),
        ([0, 1, 2], [2, 0, 1]),
        ([1], [2]),
        ([0, 0, 1, 1], [0, 1, 0, 1]),
    ],
)
def test_trivial_partitions_are_those_of_scikit_learn(labels, groups):
    got = grouping_metrics(confusion_matrix(np.array(labels), np.array(groups), 3, 3))
    nmi, ari = normalized_mutual_info_score, adjusted_rand_score
    assert got["nmi"] == pytest.approx(nmi(labels, groups), abs=1e-12)
    assert got["ari"] == pytest.approx(ari(labels, groups), abs=1e-12)


def test_by_hand():
    #                 groups: 0  1  2
    confusion = np.array([[6, 2, 0], [0, 2, 4], [0, 0, 2]])
    got = grouping_metrics(confusion)
    # Matched: 0 with 0, 6/8; 1 with 1, 2/8; 2 with 2, 2/6. Together 1.33, more than
    # the 1.25 of class 1 with group 2, 4/8, which would leave class 2 with nothing.
    assert got["matching"] == {0: 0, 1: 1, 2: 2}
    np.testing.assert_allclose(got["class_iou"], [6 / 8, 2 / 8, 2 / 6])
    assert got["miou"] == pytest.approx((6 / 8 + 2 / 8 + 2 / 6) / 3)
    assert got["pixel_accuracy"] == pytest.approx(10 / 16)
    # Majority: groups 0 and 1 (a tie, the lower class) are class 0, group 2 class 1.
    np.testing.assert_allclose(got["class_iou_majority"], [8 / 10, 4 / 8, 0.0])
    assert got["majority_accuracy"] == pytest.approx(12 / 16)


def test_the_match_is_the_best_and_not_the_greedy_one():
    # Greedy gives class 0 group 0 first and leaves class 1 with nothing.
    confusion = np.array([[10, 9], [8, 0]])
    got = grouping_metrics(confusion)
    assert got["matching"] == {0: 1, 1: 0}
    assert got["miou"] == pytest.approx((8 / 18 + 9 / 19) / 2)


def test_perfect_is_one():
    labels, _ = sample(0)
    renamed = np.array([7, 2, 0, 4, 1])[labels]
    got = grouping_metrics(confusion_matrix(labels, renamed, 5, 8))
    for name in SCALARS:
        assert got[name] == pytest.approx(1.0), name
    assert got["matching"] == {7: 0, 2: 1, 0: 2, 4: 3, 1: 4}


def test_names_of_groups_do_not_matter():
    labels, groups = sample(3)
    order = np.random.default_rng(0).permutation(8)
    got = grouping_metrics(confusion_matrix(labels, groups, 5, 8))
    renamed = grouping_metrics(confusion_matrix(labels, order[groups], 5, 8))
    for name in SCALARS:
        assert renamed[name] == pytest.approx(got[name], abs=1e-12), name
    np.testing.assert_allclose(renamed["class_iou"], got["class_iou"])
    assert renamed["matching"] == {int(order[g]): c for g, c in got["matching"].items()}


def test_unused_groups_and_absent_classes_change_nothing():
    labels, groups = sample(4)
    got = grouping_metrics(confusion_matrix(labels, groups, 5, 8))
    wide = grouping_metrics(confusion_matrix(labels, groups, 9, 40))
    for name in SCALARS:
        assert wide[name] == pytest.approx(got[name], abs=1e-12), name
    assert np.isnan(wide["class_iou"][5:]).all()


def test_more_classes_than_groups_count_zero():
    labels = np.repeat(np.arange(4), 10)
    got = grouping_metrics(confusion_matrix(labels, labels // 2, 4, 2))
    assert got["miou"] == pytest.approx((0.5 + 0.5) / 4)
    assert len(got["matching"]) == 2


def test_independent_groups_have_no_information():
    got = grouping_metrics(np.full((4, 6), 100))
    assert got["nmi"] == pytest.approx(0.0, abs=1e-12)
    assert got["ari"] == pytest.approx(0.0, abs=0.01)


def test_no_pixel_is_nan():
    got = grouping_metrics(np.zeros((3, 4), np.int64))
    assert all(np.isnan(got[name]) for name in SCALARS)
    assert got["matching"] == {}


def test_large_counts_do_not_overflow():
    confusion = np.array([[60, 20, 1], [5, 70, 3], [2, 2, 40]])
    huge = grouping_metrics(confusion * 10**14)
    got = grouping_metrics(confusion)
    for name in SCALARS[:5]:
        assert huge[name] == pytest.approx(got[name], abs=1e-12), name
    assert got["ari"] < huge["ari"] < got["ari"] + 0.02  # it depends on the counts


def test_confusion_streams_and_ignores():
    labels, groups = sample(6)
    labels = labels.astype(np.uint8)
    labels[0, :4] = 255
    whole = confusion_matrix(labels, groups, 5, 8, ignore=255)
    parts = [confusion_matrix(*p, 5, 8, 255) for p in zip(labels, groups, strict=True)]
    np.testing.assert_array_equal(whole, sum(parts))
    assert whole.sum() == labels.size - 4 * 16
    assert whole.dtype == np.int64


def test_uint8_ids_do_not_wrap():
    labels, groups = np.full(3, 200, np.uint8), np.full(3, 250, np.uint8)
    assert confusion_matrix(labels, groups, 256, 256)[200, 250] == 3


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "same shape"),
        (np.full(2, 255), np.zeros(2, int), "labels must be in .* 255"),
        (np.full(2, -1), np.zeros(2, int), "labels must be in .* -1"),
        (np.zeros(2, int), np.full(2, 4), "groups must be in"),
        (np.zeros(2), np.zeros(2, int), "labels must be integers"),
    ],
)
def test_wrong_ids_are_refused(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(labels, groups, 3, 4)


@pytest.mark.parametrize("confusion", [[1, 2], [[0.5, 1.0]], [[-1, 2]], [[]]])
def test_wrong_matrices_are_refused(confusion):
    with pytest.raises(ValueError, match="confusion must"):
        grouping_metrics(np.array(confusion))
