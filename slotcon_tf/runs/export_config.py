"""What an export is, and in which form."""

from __future__ import annotations

import dataclasses

from slotcon_tf.runs.load_settings import ModelSettings, which_setting
from slotcon_tf.runs.settings import setting
from slotcon_tf.serving.signatures import ServingOptions

EXPORT_DIR = "Folder of all versions of an export."
_DEFAULTS = ServingOptions()
_LIMITS = ("max_objects", "max_instances", "min_instance_area", "max_pixels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(ModelSettings):
    """What is exported, and in which form; see `export`.

    Example:
        >>> ExportConfig(model="runs/photos", export_dir="served/slotcon").which
        'teacher'
    """

    export_dir: str = setting(None, EXPORT_DIR)
    format: str = setting(
        "saved_model",
        "onnx writes encoder, pooled and groups as ONNX files; triton a model "
        "repository of them and one of the SavedModel; kserve an InferenceService "
        "besides.",
        choices=("saved_model", "onnx", "triton", "kserve"),
    )
    which: str = which_setting()
    precision: str = setting(
        "float32", "Of the computation.", choices=("float32", "bfloat16")
    )
    quantize: str | None = setting(
        None, "Write a LiteRT file of the encoder as well.", choices=("int8",)
    )
    calibration_images: str | None = setting(
        None,
        "Folder of images like those to come: int8's ranges, and the distance of "
        "bfloat16 and int8 from float32, are taken from them.",
    )
    image_size: int | None = setting(
        None,
        "Edge that images are brought to, pixels; 0: their own, one image at a time. "
        "Default: the model's own, or 224.",
        low=0,
    )
    mask_size: int | None = setting(
        None, "Edge of masks, pixels. Default: as of images.", low=1
    )
    max_objects: int = setting(_DEFAULTS.max_objects, "Slots per image.", low=1)
    max_instances: int = setting(
        _DEFAULTS.max_instances, "Connected parts of groups per image.", low=1
    )
    min_instance_area: float = setting(
        _DEFAULTS.min_instance_area,
        "Smaller connected parts are none, as share of the image.",
        low=0,
        high=1,
    )
    whiten: int = setting(
        0,
        "Write the signature embed_whitened, by the statistics of so many of "
        "--calibration_images, or else of the run's own images; 0: none. Ten for each "
        "dimension of the features are good.",
        low=0,
    )
    license: str | None = setting(None, "Of the weights, for the model card.")
    verify: bool = setting(
        False,
        "Load what was written in a session, as TF Serving does, and compare all "
        "signatures with the model in memory; nothing is left where they differ.",
    )
    short_edge: int | None = setting(
        None,
        "Of a detector: pixels that the shortest edge of an image becomes. Default: as "
        "it was measured.",
        low=32,
    )
    long_edge: int | None = setting(
        None, "Of a detector: pixels that the longest edge becomes at most.", low=32
    )
    max_pixels: int = setting(
        _DEFAULTS.max_pixels, "Larger images are not decoded.", low=1
    )
    batch_sizes: tuple[int, ...] | None = setting(
        None,
        "Batch sizes to warm up; '': no warm-up. Default: 1, 8 and 32; of a detector, "
        "which looks at images one by one, 1.",
        low=1,
    )
    signatures: tuple[str, ...] | None = setting(
        None,
        "Those to write. Default: all of a SavedModel; of triton and kserve, whose "
        "models have one each, embed and embed_whitened.",
    )
    batching: bool = setting(
        False,
        "Requests that come at once are computed together, in batches as large as "
        "`batch_sizes` says: for GPUs. Where inputs are of any size they cannot be.",
    )
    storage_uri: str | None = setting(
        None,
        "Of kserve: where the cluster finds the repository, such as gs://models/onnx. "
        "Default: pvc://models/slotcon/onnx.",
    )

    def limits(self) -> dict[str, float]:
        """Arguments of `ServingOptions` that are settings of the same name.

        Example:
            >>> config = ExportConfig(model="a", export_dir="b", max_objects=3)
            >>> config.limits()["max_objects"]
            3
        """
        return {name: getattr(self, name) for name in _LIMITS}
