"""A SavedModel written without this project's exporter, for servers."""

import tensorflow as tf

# Of messages' tensors, and what is in them: two numbers of each.
DTYPES = {
    **{
        name: [-3, 5]
        for name in ("int8", "int16", "int32", "int64", "float32", "float64")
    },
    **{name: [3, 250] for name in ("uint8", "uint16", "uint32", "uint64")},
    **{name: [-3.5, 2.0] for name in ("float16", "bfloat16")},
    "complex64": [1 + 2j, -0.5j],
    "complex128": [1 + 2j, -0.5j],
    "bool": [True, False],
    "string": [b"\xff\x00", b""],
}


class TinyModel(tf.Module):
    """Signatures by their names; those of images are as this project's."""

    def __init__(self, filters=4):
        super().__init__()
        kernel = tf.reshape(tf.range(27.0 * filters) / 1000, (3, 3, 3, filters))
        self.kernel = tf.Variable(kernel)

    def serving_default(self, image):
        """Pixels of any size to `map`, of `filters` channels, and `pooled`."""
        scaled = tf.cast(image, tf.float32) / 255
        found = tf.nn.conv2d(scaled, self.kernel, 2, "VALID")
        return {"map": found, "pooled": tf.reduce_mean(found, [1, 2])}

    def image_bytes(self, image_bytes):
        """Of files: how long each is."""
        length = tf.strings.length(image_bytes)
        status = {"ok": length > 0, "reason": tf.cast(length == 0, tf.int32)}
        return {"pooled": tf.cast(length, tf.float32)[:, None], **status}

    def text(self, text):
        """Refuses what is no base64."""
        decoded = tf.io.decode_base64(text)
        return {"decoded_bytes": decoded, "length": tf.strings.length(text)}

    def sums(self, a, b):
        """Of rows of two inputs."""
        found = tf.reduce_sum(a, 1) + tf.cast(b, tf.float32)
        return {"sum": found, "even": b % 2 == 0, "text": tf.strings.as_string(b)}

    def half(self, x):
        """One output, of numbers that may not be finite."""
        return {"y": x / 2}

    def kinds(self, **kinds):
        """Every dtype as it came; another shape each, besides."""
        return {
            **kinds,
            "scalar": tf.reduce_sum(kinds["int64"]),
            "word": tf.strings.reduce_join(kinds["string"]),
            "empty": kinds["int64"][:0, None],
        }

    def forever(self, x):
        """Never answers."""
        return {"x": tf.while_loop(lambda x: x > 0, lambda x: [x + 1 - 1], [x])[0]}


def write_tiny_model(path, filters=4):
    """Writes a version.

    Args:
        path: pathlib.Path of its folder; not there yet.
        filters: Channels of `map`, to tell versions apart.
    """
    model, spec = TinyModel(filters), tf.TensorSpec
    inputs = {
        "serving_default": [spec([None, None, None, 3], tf.uint8, "image")],
        "image_bytes": [spec([None], tf.string, "image_bytes")],
        "text": [spec([None], tf.string, "text")],
        "sums": [spec([None, 2], tf.float32, "a"), spec([None], tf.int64, "b")],
        "half": [spec([None], tf.float32, "x")],
        "forever": [spec([], tf.int32, "x")],
    }
    signatures = {
        name: tf.function(getattr(model, name), input_signature=specs)
        for name, specs in inputs.items()
    }
    kinds = {name: spec([None], name, name) for name in DTYPES}
    signatures["kinds"] = tf.function(model.kinds).get_concrete_function(**kinds)
    tf.saved_model.save(model, str(path), signatures)
