"""An encoder in int8, as a LiteRT (TFLite) file."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from slotcon_tf.images.statistics import IMAGENET, ImageStatistics


def quantize_int8(
    encoder: keras.Model, images: np.ndarray, statistics: ImageStatistics = IMAGENET
) -> bytes:
    """Post-training quantisation of weights and activations to int8.

    Args:
        encoder: Keras model, normalised images to a map (N, h, w, C), its batch
            normalisation folded (`slotcon_tf.serving.folding.fold_batch_norm`).
        images: uint8 (M, height, width, 3), a hundred or more that look like those to
            come: the activations' ranges are taken from them. The file takes images of
            this size, any number at once.
        statistics: What images are normalised with.

    Returns:
        bytes of a .tflite file: uint8 (N, height, width, 3) to `map` and `pooled`
        (N, C), both float32.

    Raises:
        ValueError: If the images are not uint8 of rank 4.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
        >>> photos = np.zeros((2, 8, 8, 3), np.uint8)
        >>> quantize_int8(encoder, photos)[4:8]  # how LiteRT's files begin
        b'TFL3'
    """
    if images.dtype != "uint8" or images.ndim != 4:
        raise ValueError(
            "images must be uint8 (M, height, width, 3). Received: "
            f"{images.dtype} {images.shape}."
        )
    spec = tf.TensorSpec([None, *images.shape[1:]], tf.float32, name="image")

    @tf.function(input_signature=[spec])
    def features(image):
        maps = encoder(statistics.normalize(image), training=False)
        return {"map": maps, "pooled": tf.reduce_mean(maps, axis=[1, 2])}

    # As constants: the calibrator reads no variables.
    frozen = convert_variables_to_constants_v2(features.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], encoder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    # The input's scale is taken from them too, and must be that of plain bytes.
    extremes = images[:1].copy()
    extremes[0, 0, 0], extremes[0, -1, -1] = 0, 255
    calibration = np.concatenate([images, extremes]).astype("float32")
    converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    return converter.convert()


def in_interpreter(
    content: bytes, threads: int | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a file of `quantize_int8` in the LiteRT interpreter.

    Args:
        content: bytes of the file.
        threads: Of the interpreter; its own choice if None.

    Returns:
        Function of uint8 (N, height, width, 3) to pooled features (N, C).

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
        >>> photos = np.zeros((2, 8, 8, 3), np.uint8)
        >>> in_interpreter(quantize_int8(encoder, photos))(photos).shape
        (2, 4)
    """
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
    (source,) = interpreter.get_input_details()
    pooled = next(o for o in interpreter.get_output_details() if len(o["shape"]) == 2)
    interpreter.allocate_tensors()

    def run(images):
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(source["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(pooled["index"])

    return run
