"""The graph that is served: signatures, decoding, folding, archive, warm-up.

`export_model`, and `export_detector` of a detector, write a version that TF Serving
loads. What it answers stands in `signatures` and in `detector`; files that it is sent
become pixels in `decoding` (their formats in `formats`, their containers in
`containers`) as `slotcon_tf.images` makes them.

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
    from slotcon_tf.serving.onnx_file import export_onnx
    from slotcon_tf.serving.signatures import ServedModel, ServingOptions

__all__ = [
    "DetectorOptions",
    "ServedDetector",
    "ServedModel",
    "ServingOptions",
    "decode_batch",
    "export_detector",
    "export_model",
    "export_onnx",
    "serve",
]
_PLACES = {
    "DetectorOptions": "detector",
    "ServedDetector": "detector",
    "ServedModel": "signatures",
    "ServingOptions": "signatures",
    "decode_batch": "decoding",
    "export_detector": "detector",
    "export_model": "archive",
    "export_onnx": "onnx_file",
    "serve": "archive",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
