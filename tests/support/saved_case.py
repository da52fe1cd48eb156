"""A SavedModel as TF Serving has it, and files for it."""

import numpy as np
import tensorflow as tf

from slotcon_tf.serving.signatures import ServingOptions
from tests.support.picture_case import encoded, pictures

OPTIONS = ServingOptions(image_size=64, mask_size=48, max_objects=5, max_pixels=20_000)


def files():
    good = [encoded(p, "PNG") for p in pictures()]
    jpeg = encoded(pictures()[0], quality=95)
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    bad = {
        b"": "empty",
        b"<html>": "no known image format",
        encoded(noise)[:2000]: "damaged",
        encoded(np.zeros((200, 101, 3), np.uint8), "PNG"): "too many pixels",
        encoded(pictures()[0], "PNG")[:40]: "damaged",
    }
    content, reasons = [], []
    for data, reason in [(good[0], "ok"), *bad.items(), (good[1], "ok"), (jpeg, "ok")]:
        content.append(data)
        reasons.append(reason)
    return content, reasons


def session_answers(version):
    """Function (signature, input array) -> outputs, in a session as in TF Serving.

    A third argument is an output filter; () is all.
    """
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))

    def answer(name, value, wanted=()):
        signature = meta.signature_def[name]
        (source,) = signature.inputs.values()
        outputs = {key: info.name for key, info in signature.outputs.items()}
        outputs = {key: outputs[key] for key in wanted or outputs}
        return session.run(outputs, {source.name: value})

    return answer, set(meta.signature_def)
