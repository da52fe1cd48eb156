"""The paper's protocol for detection as a configuration of detectron2 0.6.

Reference: Wen et al. 2022 (arXiv 2205.15288), section 4.1 and appendix; the values are
those of the authors' own file, COCO_R_50_FPN_1x_SlotCon.yaml in
transfer/detection/configs of github.com/CVMI-Lab/SlotCon. What that leaves open is the
toolbox's default.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.images.statistics import statistics_of

_D2 = """\
# Mask R-CNN, R50-FPN, 1x schedule on COCO: the paper's protocol for detection and
# instance segmentation (arXiv 2205.15288, section 4.1). Eight GPUs, two images on each.
#
#   python tools/train_net.py {flags} --config-file {config} \\
#     OUTPUT_DIR runs/coco_1x
#
# tools/train_net.py is detectron2's; run it where datasets/coco is. Every value is that
# of the authors' own file, transfer/detection/configs/COCO_R_50_FPN_1x_SlotCon.yaml in
# github.com/CVMI-Lab/SlotCon, for their ResNet-50.
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: {weights}
  MASK_ON: {masks}
  # The images as they were in pretraining: RGB, v1.5 blocks, nothing frozen.
  PIXEL_MEAN: [{mean}]
  PIXEL_STD: [{std}]
  BACKBONE:
    NAME: build_resnet_fpn_backbone
    FREEZE_AT: 0
  RESNETS:
    DEPTH: {depth}
    STRIDE_IN_1X1: False
    NUM_GROUPS: {groups}
    WIDTH_PER_GROUP: {width_per_group}
    STEM_OUT_CHANNELS: {width}
    RES2_OUT_CHANNELS: {res2}
    OUT_FEATURES: [res2, res3, res4, res5]
    NORM: SyncBN
  FPN:
    IN_FEATURES: [res2, res3, res4, res5]
    NORM: SyncBN{pyramid}
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: {proposals[0]}
    PRE_NMS_TOPK_TEST: {test_proposals[0]}
    POST_NMS_TOPK_TRAIN: {proposals[1]}
    POST_NMS_TOPK_TEST: {test_proposals[1]}{rpn}
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [p2, p3, p4, p5]{regions}
  ROI_BOX_HEAD:
    NAME: FastRCNNConvFCHead
    NUM_CONV: 4
    NUM_FC: 1
    NORM: SyncBN{boxes}
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NAME: MaskRCNNConvUpsampleHead
    NUM_CONV: 4
    NORM: SyncBN{mask_head}
    POOLER_RESOLUTION: 14
DATASETS:
  TRAIN: (coco_2017_train,)
  TEST: (coco_2017_val,)
INPUT:
  FORMAT: RGB
  MIN_SIZE_TRAIN: {short_edges}{edges}
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  STEPS: (60000, 80000)
  MAX_ITER: 90000
TEST:
  EVAL_PERIOD: 0{test}
  PRECISE_BN:
    ENABLED: True
VERSION: 2
"""

_SHORT_EDGES = (640, 672, 704, 736, 768, 800)
# What is the toolbox's default unless a detector says otherwise.
_OF_DETECTORS = ("pyramid", "rpn", "regions", "boxes", "mask_head", "edges", "test")


def texts(encoder: ResNet, weights: pathlib.Path) -> dict[str, str]:
    """Texts of the configurations by file name, for weights at a pathlib.Path.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> ((name, text),) = texts(encoder, pathlib.Path("slotcon.pkl")).items()
        >>> name, "DEPTH: 10" in text
        ('slotcon_coco_1x.yaml', True)
    """
    name = f"{weights.stem}_coco_1x.yaml"
    return {name: _text(encoder, weights, name, "--num-gpus 8", {})}


def detector_texts(
    encoder: ResNet, weights: pathlib.Path, sizes: Mapping[str, Any]
) -> dict[str, str]:
    """As `texts`, of a whole detector: its classes and sizes as well.

    Args:
        encoder: Its `slotcon_tf.ResNet`.
        weights: pathlib.Path of the detector's weights.
        sizes: Arguments of `slotcon_tf.detection.MaskRCNN`, and `num_classes`.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_classes": 5, "channels": 8, "units": 16, "masks": True}
        >>> sizes |= {"proposals": (9, 9), "test_proposals": (9, 9)}
        >>> sizes |= {"anchors_per_image": 8, "regions_per_image": 8}
        >>> sizes |= {"max_detections": 9, "short_edge": 64, "long_edge": 128}
        >>> encoder = backbone("resnet10", width=8)
        >>> found = detector_texts(encoder, pathlib.Path("d.pth"), sizes)["d.yaml"]
        >>> "NUM_CLASSES: 5" in found, "FC_DIM: 16" in found
        (True, True)
    """
    name = f"{weights.stem}.yaml"
    return {name: _text(encoder, weights, name, "--eval-only", sizes)}


def _text(encoder, weights, name, flags, sizes):
    expansion = 4 if encoder.block == "bottleneck" else 1
    own = statistics_of(encoder)
    more = dict.fromkeys(_OF_DETECTORS, "")
    if sizes:
        conv = f"\n    CONV_DIM: {sizes['channels']}"
        more = {
            "pyramid": f"\n    OUT_CHANNELS: {sizes['channels']}",
            "rpn": f"\n    BATCH_SIZE_PER_IMAGE: {sizes['anchors_per_image']}",
            "regions": f"\n    NUM_CLASSES: {sizes['num_classes']}"
            f"\n    BATCH_SIZE_PER_IMAGE: {sizes['regions_per_image']}",
            "boxes": f"{conv}\n    FC_DIM: {sizes['units']}",
            "mask_head": conv,
            "edges": f"\n  MAX_SIZE_TRAIN: {sizes['long_edge']}"
            f"\n  MIN_SIZE_TEST: {sizes['short_edge']}"
            f"\n  MAX_SIZE_TEST: {sizes['long_edge']}",
            "test": f"\n  DETECTIONS_PER_IMAGE: {sizes['max_detections']}",
        }
    short_edges = _SHORT_EDGES
    if sizes.get("short_edge", short_edges[-1]) != short_edges[-1]:
        # Those of training are not kept: the one that it is measured with.
        short_edges = (sizes["short_edge"],)
    return _D2.format(
        config=name,
        short_edges=short_edges,
        flags=flags,
        masks=sizes.get("masks", True),
        proposals=sizes.get("proposals", (2000, 1000)),
        test_proposals=sizes.get("test_proposals", (1000, 1000)),
        **more,
        weights=weights.absolute(),
        mean=_bytes(own.mean),
        std=_bytes(own.std),
        depth=encoder.depth,
        groups=encoder.groups,
        width_per_group=encoder.width_per_group * encoder.width // 64,
        width=encoder.width,
        res2=encoder.width * expansion,
    )


def _bytes(values):
    return ", ".join(f"{255 * value:.3f}" for value in values)
