"""The graph that is served: signatures, decoding, folding, archive, warm-up.

`export_model`, and `export_detector` of a detector, write a version that TF Serving
loads. What it answers stands in `signatures`, `instances` and `detector`, what makes
vectors comparable in `whitening`, what an export says of itself in `model_card`; files
that it is sent become pixels in `decoding` (their formats in `formats`, their
containers in `containers`) as `slotcon_tf.images` makes them.

Importing this costs nothing: what is named here is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slotcon_tf.lazy import lazy_names

if TYPE_CHECKING:
    from slotcon_tf.serving.archive import export_model, serve
    from slotcon_tf.serving.decoding import decode_batch
    from slotcon_tf.serving.detector import (
        DetectorOptions,
        ServedDetector,
        export_detector,
    )
    from slotcon_tf.serving.model_card import weights_digest, write_card
    from slotcon_tf.serving.onnx_file import export_onnx, export_onnx_files
    from slotcon_tf.serving.signatures import ServedModel, ServingOptions
    from slotcon_tf.serving.verification import verify
    from slotcon_tf.serving.whitening import Whitening

__all__ = [
    "DetectorOptions",
    "ServedDetector",
    "ServedModel",
    "ServingOptions",
    "Whitening",
    "decode_batch",
    "export_detector",
    "export_model",
    "export_onnx",
    "export_onnx_files",
    "serve",
    "verify",
    "weights_digest",
    "write_card",
]
_PLACES = {
    "DetectorOptions": "detector",
    "ServedDetector": "detector",
    "ServedModel": "signatures",
    "ServingOptions": "signatures",
    "Whitening": "whitening",
    "decode_batch": "decoding",
    "export_detector": "detector",
    "export_model": "archive",
    "export_onnx": "onnx_file",
    "export_onnx_files": "onnx_file",
    "serve": "archive",
    "verify": "verification",
    "weights_digest": "model_card",
    "write_card": "model_card",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
