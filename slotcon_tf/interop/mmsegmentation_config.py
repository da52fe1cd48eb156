"""The paper's protocols for segmentation as configurations of mmsegmentation 1.x.

Reference: Wen et al. 2022 (arXiv 2205.15288), section 4.1 and appendix, and the
authors' files for mmsegmentation 0.x. What the paper leaves open is the toolbox's
default.
"""

from __future__ import annotations

import pathlib
import pprint

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.images.statistics import statistics_of

_VOC = {
    "type": "PascalVOCDataset",
    "data_root": "data/VOCdevkit/VOC2012",
}
_VOC_LISTS = "ImageSets/Segmentation"
_PROTOCOLS = {
    "voc12aug_513_30k": {
        "title": "FCN-d6 on PASCAL VOC 2012 (augmented), 513 px, 30k steps",
        "gpus": 2,
        "scale": (2049, 513),
        "crop": 513,
        "steps": 30_000,
        "lr": 0.003,
        "num_classes": 21,
        "train": {
            "type": "ConcatDataset",
            "datasets": [
                {
                    **_VOC,
                    "data_prefix": {
                        "img_path": "JPEGImages",
                        "seg_map_path": f"SegmentationClass{kind}",
                    },
                    "ann_file": f"{_VOC_LISTS}/{name}.txt",
                }
                for kind, name in (("", "train"), ("Aug", "aug"))
            ],
        },
        "val": {
            **_VOC,
            "data_prefix": {
                "img_path": "JPEGImages",
                "seg_map_path": "SegmentationClass",
            },
            "ann_file": f"{_VOC_LISTS}/val.txt",
        },
    },
    "cityscapes_769_90k": {
        "title": "FCN-d6 on Cityscapes, 769 px, 90k steps",
        "gpus": 2,
        "scale": (2049, 1025),
        "crop": 769,
        "steps": 90_000,
        "lr": 0.01,
        "num_classes": 19,
        "sliding": 513,
        **{
            split: {
                "type": "CityscapesDataset",
                "data_root": "data/cityscapes/",
                "data_prefix": {
                    "img_path": f"leftImg8bit/{split}",
                    "seg_map_path": f"gtFine/{split}",
                },
            }
            for split in ("train", "val")
        },
    },
    "ade20k_512_80k": {
        "title": "FCN-d8 on ADE20K, 512 px, 80k steps",
        "gpus": 4,
        "scale": (2048, 512),
        "crop": 512,
        "steps": 80_000,
        "lr": 0.01,
        "num_classes": 150,
        "d8": True,
        **{
            split: {
                "type": "ADE20KDataset",
                "data_root": "data/ade/ADEChallengeData2016",
                "data_prefix": {
                    "img_path": f"images/{folder}",
                    "seg_map_path": f"annotations/{folder}",
                },
            }
            for split, folder in (("train", "training"), ("val", "validation"))
        },
    },
}
_HEAD = '''"""{title}, for mmsegmentation 1.x.

    mim train mmsegmentation {config} --launcher pytorch --gpus {gpus}

The paper's protocol (arXiv 2205.15288, section 4.1): {gpus} GPUs with {per_gpu} images
each, 16 together. Run it where `data/` is.
{differs}"""

'''
# Not of ADE20K: the authors' file has the name of mmsegmentation's own, whose numbers
# are of images of 0 to 255, as here.
_DIFFERS = """
Differs: the authors' file takes means and deviations of images of 0 to 1 off images of
0 to 255, and the paper's mIoU is of that; here the images are normalised as in
pretraining.
"""


def texts(encoder: ResNet, weights: pathlib.Path) -> dict[str, str]:
    """Texts of the configurations by file name, for weights at a pathlib.Path."""
    found = {}
    for name, protocol in _PROTOCOLS.items():
        config = f"{weights.stem}_{name}.py"
        found[config] = _text(encoder, weights, protocol, config)
    return found


def _text(encoder, weights, protocol, config):
    per_gpu = 16 // protocol["gpus"]
    text = _HEAD.format(
        title=protocol["title"],
        config=config,
        gpus=protocol["gpus"],
        per_gpu=per_gpu,
        differs="" if protocol.get("d8") else _DIFFERS,
    )
    settings = {
        "_base_": ["mmseg::_base_/default_runtime.py"],
        "model": _model(encoder, weights, protocol),
        **_data(protocol, per_gpu),
        **_schedule(protocol),
    }
    for name, value in settings.items():
        text += f"{name} = {pprint.pformat(value, sort_dicts=False, width=88)}\n"
    return text


def _backbone(encoder, weights):
    kind = "ResNetV1d" if encoder.deep_stem else "ResNet"
    found = {"type": kind, "depth": encoder.depth, "base_channels": encoder.width}
    found["stem_channels"] = encoder.width
    if encoder.groups > 1 or encoder.width_per_group != 64:
        found.update(
            type="ResNeXt",
            groups=encoder.groups,
            base_width=encoder.width_per_group,
        )
    return {
        **found,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "style": "pytorch",
        "contract_dilation": True,
        "init_cfg": {"type": "Pretrained", "checkpoint": str(weights.absolute())},
    }


def _model(encoder, weights, protocol):
    norm = {"type": "SyncBN", "requires_grad": True}
    channels = encoder.num_channels
    own = statistics_of(encoder)

    def head(**options):
        return {
            "type": "FCNHead",
            "norm_cfg": norm,
            "num_classes": protocol["num_classes"],
            **options,
        }

    backbone = _backbone(encoder, weights)
    auxiliary, test = None, {"mode": "whole"}
    if protocol.get("d8"):
        backbone |= {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
        decode = head(in_channels=channels, in_index=3, channels=512, num_convs=2)
        decode |= {"concat_input": True, "dropout_ratio": 0.1}
        auxiliary = head(in_channels=channels // 2, in_index=2, channels=256)
        auxiliary |= {"num_convs": 1, "concat_input": False, "dropout_ratio": 0.1}
        auxiliary["loss_decode"] = {"type": "CrossEntropyLoss", "loss_weight": 0.4}
    else:
        backbone |= {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}
        decode = head(in_channels=channels, in_index=3, channels=256, num_convs=2)
        decode |= {"dilation": 6, "concat_input": False, "dropout_ratio": 0}
        decode["align_corners"] = True
    if protocol.get("sliding"):
        size, stride = protocol["crop"], protocol["sliding"]
        test = {"mode": "slide", "crop_size": (size,) * 2, "stride": (stride,) * 2}
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [round(255 * x, 3) for x in own.mean],
            "std": [round(255 * x, 3) for x in own.std],
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": 255,
            "size": (protocol["crop"],) * 2,
        },
        "backbone": backbone,
        "decode_head": decode,
        "auxiliary_head": auxiliary,
        "train_cfg": {},
        "test_cfg": test,
    }


def _data(protocol, per_gpu):
    d8 = protocol.get("d8", False)
    load = {"type": "LoadAnnotations", **({"reduce_zero_label": True} if d8 else {})}
    image = {"type": "LoadImageFromFile"}
    pack = {"type": "PackSegInputs"}
    scale, crop = protocol["scale"], (protocol["crop"],) * 2
    resize = {"scale": scale, "keep_ratio": True}
    train = [
        image,
        load,
        {"type": "RandomResize", "ratio_range": (0.5, 2.0), **resize},
        {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75 if d8 else 1.0},
        {"type": "RandomFlip", "prob": 0.5},
        *([{"type": "PhotoMetricDistortion"}] if d8 else []),
        pack,
    ]
    # Labels are read after the resizing: they keep their own size.
    test = [image, {"type": "Resize", **resize}, load, pack]
    sets = protocol["train"].get("datasets")
    if sets:
        sets = {"datasets": [{**one, "pipeline": train} for one in sets]}
    else:
        sets = {"pipeline": train}
    loader = {"num_workers": 4, "persistent_workers": True}
    val = {
        "batch_size": 1,
        **loader,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {**protocol["val"], "pipeline": test},
    }
    evaluator = {"type": "IoUMetric", "iou_metrics": ["mIoU"]}
    return {
        "train_dataloader": {
            "batch_size": per_gpu,
            **loader,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {**protocol["train"], **sets},
        },
        "val_dataloader": val,
        "test_dataloader": val,
        "val_evaluator": evaluator,
        "test_evaluator": evaluator,
    }


def _schedule(protocol):
    steps = protocol["steps"]
    decay, poly = 0.0001, protocol.get("d8")
    schedule = {
        "type": "MultiStepLR",
        "milestones": [steps * 7 // 10, steps * 9 // 10],
        "gamma": 0.1,
        "by_epoch": False,
    }
    if poly:
        decay = 0.0005
        schedule = {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9}
        schedule |= {"begin": 0, "end": steps, "by_epoch": False}
    optimizer = {"type": "SGD", "lr": protocol["lr"], "momentum": 0.9}
    hooks = {
        "timer": {"type": "IterTimerHook"},
        "logger": {"type": "LoggerHook", "interval": 50},
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {
            "type": "CheckpointHook",
            "by_epoch": False,
            "interval": steps // 10,
        },
        "sampler_seed": {"type": "DistSamplerSeedHook"},
    }
    return {
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {**optimizer, "weight_decay": decay},
        },
        "param_scheduler": [schedule],
        "train_cfg": {
            "type": "IterBasedTrainLoop",
            "max_iters": steps,
            "val_interval": steps // 10,
        },
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "default_hooks": hooks,
    }
