"""Connected parts are those of scipy.ndimage.label; two objects of a group are two."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from slotcon_tf.serving.instances import connected_parts, largest_instances
from slotcon_tf.serving.signatures import largest_slots


def truth(values):
    """As `connected_parts`, of scipy's labels with 4-connectivity."""
    found = np.full(values.shape, -1)
    for image, result in zip(values, found, strict=True):
        for value in np.unique(image):
            labels, count = scipy.ndimage.label(image == value)
            for number in range(1, count + 1):
                part = labels == number
                result[part] = np.flatnonzero(part)[0]
    return found


def spiral(edge):
    """A path one position wide from the corner to the middle."""
    grid = np.zeros((edge, edge), int)
    y, x, direction = 0, 0, 0
    grid[0, 0] = 1
    for length in [edge - 1] + [n for n in range(edge - 1, 0, -2) for _ in (0, 1)]:
        for _ in range(length):
            y += (0, 1, 0, -1)[direction]
            x += (1, 0, -1, 0)[direction]
            grid[y, x] = 1
        direction = (direction + 1) % 4
    return grid


@pytest.fixture(scope="module")
def in_graph():
    """As in a SavedModel: nothing of the shape is known."""
    spec = tf.TensorSpec([None, None, None], tf.int32)
    return tf.function(connected_parts, input_signature=[spec])


@pytest.mark.parametrize("kinds", [1, 2, 3, 9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 7), (13, 8), (28, 28)])
def test_parts_are_scipys(in_graph, kinds, shape):
    rng = np.random.default_rng(kinds)
    values = rng.integers(0, kinds, (4, *shape))
    found = in_graph(tf.constant(values, tf.int32)).numpy()
    np.testing.assert_array_equal(found, truth(values))


def test_the_longest_ways_are_gone(in_graph):
    """Snakes, whose ends are most steps apart, from every side."""
    snake = np.zeros((15, 15), int)
    snake[::2] = 1
    snake[1::4, -1] = snake[3::4, 0] = 1
    values = np.stack([f(g) for g in (snake, spiral(15)) for f in TURNS])
    found = in_graph(tf.constant(values, tf.int32)).numpy()
    np.testing.assert_array_equal(found, truth(values))


TURNS = [np.array, np.flipud, np.fliplr, np.transpose]


def parts_of(winners, **options):
    """`largest_instances` of prototypes that win clearly, as arrays of an image."""
    winners = np.asarray(winners)
    logits = tf.one_hot(winners[None], 4, on_value=0.9, off_value=-0.2)
    places = np.indices(winners.shape).transpose(1, 2, 0)[None] + 1.0
    options = {"max_instances": 5, "min_area": 0.0, **options}
    found = largest_instances(tf.constant(places), logits, 0.1, **options)
    slots = largest_slots(tf.constant(places), logits, 4, 0.1)
    return ({k: v.numpy()[0] for k, v in each.items()} for each in (found, slots))


STREET = [
    [0, 0, 0, 0, 0, 0],
    [2, 2, 0, 0, 2, 0],
    [2, 2, 0, 0, 2, 1],
    [0, 0, 0, 1, 1, 1],
]


def test_two_cars_are_two():
    found, slots = parts_of(STREET)
    assert (slots["prototype"][slots["valid"]] == [0, 2, 1]).all()
    np.testing.assert_array_equal(found["prototype"], [0, 2, 1, 2, 0])
    np.testing.assert_allclose(found["area"] * 24, [14, 4, 4, 2, 0], atol=1e-5)
    np.testing.assert_array_equal(np.argwhere(found["mask"][3]), [[1, 4], [2, 4]])
    np.testing.assert_allclose(found["box"][3], [4 / 6, 1 / 4, 5 / 6, 3 / 4])
    np.testing.assert_allclose(found["box"][1], [0, 1 / 4, 2 / 6, 3 / 4])
    np.testing.assert_array_equal(found["valid"], [1, 1, 1, 1, 0])
    assert found["mask"].dtype == bool and not found["mask"][4].any()
    # Each vector is of its own places only, and of length 1.
    expected = np.array([2.5, 5.0]) / np.hypot(2.5, 5.0)
    np.testing.assert_allclose(found["vector"][3], expected, atol=1e-5)
    share = np.exp(9.0) / (np.exp(9.0) + 3 * np.exp(-2.0))
    np.testing.assert_allclose(found["score"][:4], share, rtol=1e-4)


def test_a_group_of_one_part_is_the_object():
    found, slots = parts_of([[0, 0, 3], [0, 0, 3]])
    for name in ("prototype", "area", "box"):
        np.testing.assert_allclose(found[name][:2], slots[name][:2], atol=1e-6)
    assert (found["vector"][:2] * slots["vector"][:2]).sum(axis=1).min() > 0.99


def test_the_floor_and_the_number_hold():
    found, _ = parts_of(STREET, min_area=0.1)
    np.testing.assert_array_equal(found["valid"], [1, 1, 1, 0, 0])
    for name, value in found.items():
        assert not np.any(value[3:]), name
    found, _ = parts_of(STREET, max_instances=2)
    np.testing.assert_array_equal(found["prototype"], [0, 2])
    found, _ = parts_of([[1]], max_instances=3)  # fewer positions than places
    np.testing.assert_array_equal(found["valid"], [1, 0, 0])
