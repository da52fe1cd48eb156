"""Where requests are computed together: never pixels of any size."""

import pathlib
import threading

import pytest
import tensorflow as tf

from slotcon_tf.serving.batching import PARAMETERS_FILE, write_batching

PIXELS = (None, [tf.TensorSpec([None, None, None, 3], tf.uint8, "image")])
FILES = (None, [tf.TensorSpec([None], tf.string, "image_bytes")])


def test_what_a_version_says_of_itself(tmp_path):
    path = write_batching(tmp_path, {"embed": FILES}, (32, 1, 8))
    assert path == tmp_path / PARAMETERS_FILE
    assert [x for x in path.read_text().splitlines() if "allowed" in x] == [
        "allowed_batch_sizes: 1",
        "allowed_batch_sizes: 8",
        "allowed_batch_sizes: 32",
    ]


@pytest.mark.parametrize(
    ("signatures", "sizes", "message"),
    [
        ({"embed": FILES, "pyramid": PIXELS}, (1,), "pyramid, which take any"),
        ({"embed": FILES}, (), "`batch_sizes` must have a size"),
    ],
)
def test_what_cannot_be_batched(tmp_path, signatures, sizes, message):
    with pytest.raises(ValueError, match=message):
        write_batching(pathlib.Path(tmp_path), signatures, sizes)
    assert not list(tmp_path.iterdir())


def at_once(call, *values):
    """What each of several clients gets, or the error."""
    found = [None] * len(values)

    def ask(place, value):
        try:
            found[place] = call(value).numpy()
        except tf.errors.OpError as error:
            found[place] = error

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(values)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def together(function, spec):
    """In TensorFlow's own batches of two, which TF Serving makes as well."""
    batched = tf.nondifferentiable_batch_function(1, 2, 10_000_000)(function)
    return tf.function(batched, [spec], autograph=False)


def test_the_trap_clients_of_unequal_sizes_fail_each_other():
    def mean(image):
        return tf.reduce_mean(tf.cast(image, tf.float32), axis=[1, 2])

    call = together(mean, PIXELS[1][0])
    small, large = (tf.zeros([1, edge, edge, 3], tf.uint8) for edge in (4, 5))
    assert [x.shape for x in at_once(call, small, small)] == [(1, 3)] * 2
    errors = at_once(call, small, large)
    assert all(isinstance(x, tf.errors.InvalidArgumentError) for x in errors)


def test_files_of_any_size_are_batched():
    call = together(tf.strings.length, FILES[1][0])
    short, long = tf.constant([b"a"]), tf.constant([b"a" * 99])
    assert [x.tolist() for x in at_once(call, short, long)] == [[1], [99]]
