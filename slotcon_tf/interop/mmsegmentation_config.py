"""The paper's protocols for segmentation as configurations of mmsegmentation 1.x.

Reference: Wen et al. 2022 (arXiv 2205.15288), section 4.1 and appendix, and the
authors' files for mmsegmentation 0.x. What the paper leaves open is the toolbox's
default. Numbers of a protocol are those of its recipe (`slotcon_tf.recipes`) and head
(`slotcon_tf.presets`): what is here is the toolbox's own.
"""

from __future__ import annotations

import pathlib
import pprint
from typing import Any

from slotcon_tf import presets, recipes
from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.schedules import Poly, Steps

_VOC = {
    "type": "PascalVOCDataset",
    "data_root": "data/VOCdevkit/VOC2012",
}
_VOC_LISTS = "ImageSets/Segmentation"
_PROTOCOLS = {
    "voc12aug_513_30k": {
        "title": "PASCAL VOC 2012 (augmented)",
        "gpus": 2,
        "recipe": "voc_fcn",
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
        "title": "Cityscapes",
        "gpus": 2,
        "recipe": "cityscapes_fcn",
        "num_classes": 19,
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
        "title": "ADE20K",
        "gpus": 4,
        "recipe": "ade20k_fcn",
        "num_classes": 150,
        "reduce_zero_label": True,
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
_HEAD = '''"""FCN-{head} on {title}, {crop} px, {steps}k steps, for mmsegmentation 1.x.

    mim train mmsegmentation {config} --launcher pytorch --gpus {gpus}

The paper's protocol (arXiv 2205.15288, section 4.1): {gpus} GPUs with {per_gpu} images
each, {batch} together. Run it where `data/` is.
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
    """Texts of the configurations by file name, for weights at a pathlib.Path.

    Example:
        >>> from slotcon_tf import backbone
        >>> found = texts(backbone("resnet10", width=8), pathlib.Path("slotcon.pth"))
        >>> "'base_channels': 8" in found["slotcon_ade20k_512_80k.py"]
        True
    """
    found = {}
    for name, own in _PROTOCOLS.items():
        config = f"{weights.stem}_{name}.py"
        protocol = {**own, **_numbers(own["recipe"])}
        found[config] = _text(encoder, weights, protocol, config)
    return found


def _numbers(recipe):
    """What a recipe says of its protocol."""
    values = recipes.values(recipe)
    return {
        "scale": tuple(int(edge) for edge in values["fit_edges"].split(",")),
        "ratios": (float(values["min_ratio"]), float(values["max_ratio"])),
        "crop": int(values["crop_size"]),
        "cat_max_ratio": float(values["cat_max_ratio"]),
        "distort": values.get("distort", "false").lower() in ("true", "t", "1"),
        "sliding": int(values["sliding_stride"]),
        "head": values["head"],
        "batch": int(values["batch_size"]),
        "steps": int(values["steps"]),
        "every": int(values["eval_every_steps"]),
        "schedule": values["schedule"],
        "lr": float(values["learning_rate"]),
        "decay": float(values["weight_decay"]),
    }


def _text(encoder, weights, protocol, config):
    per_gpu = protocol["batch"] // protocol["gpus"]
    text = _HEAD.format(
        **{**protocol, "steps": protocol["steps"] // 1000},
        config=config,
        per_gpu=per_gpu,
        differs="" if protocol["recipe"] == "ade20k_fcn" else _DIFFERS,
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


# Of the encoder's stages, by its output stride.
_STAGES = {
    8: {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)},
    16: {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)},
}


def _model(encoder, weights, protocol):
    channels = encoder.num_channels
    own = statistics_of(encoder)

    def head(settings, **options):
        """An FCNHead of the toolbox, of the arguments of ours."""
        settings = dict(settings)
        return {
            "type": "FCNHead",
            "norm_cfg": {"type": "SyncBN", "requires_grad": True},
            "num_classes": protocol["num_classes"],
            **options,
            "dropout_ratio": settings.pop("dropout"),
            **settings,
        }

    name, test = protocol["head"], {"mode": "whole"}
    chosen = presets.HEADS[name]
    aligned = {"align_corners": chosen["align_corners"]}
    backbone = _backbone(encoder, weights) | _STAGES[presets.OUTPUT_STRIDES[name]]
    decode = head(chosen["head"], in_channels=channels, in_index=3) | aligned
    auxiliary = None
    if chosen["auxiliary_weight"]:
        auxiliary = head(presets.AUXILIARY_HEAD, in_channels=channels // 2, in_index=2)
        weight = chosen["auxiliary_weight"]
        auxiliary["loss_decode"] = {"type": "CrossEntropyLoss", "loss_weight": weight}
    if protocol["sliding"]:
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
    load: dict[str, Any] = {"type": "LoadAnnotations"}
    if protocol.get("reduce_zero_label"):
        load["reduce_zero_label"] = True
    image = {"type": "LoadImageFromFile"}
    pack = {"type": "PackSegInputs"}
    scale, crop = protocol["scale"], (protocol["crop"],) * 2
    resize = {"scale": scale, "keep_ratio": True}
    train = [
        image,
        load,
        {"type": "RandomResize", "ratio_range": protocol["ratios"], **resize},
        {
            "type": "RandomCrop",
            "crop_size": crop,
            "cat_max_ratio": protocol["cat_max_ratio"],
        },
        {"type": "RandomFlip", "prob": 0.5},
        *([{"type": "PhotoMetricDistortion"}] if protocol["distort"] else []),
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
    steps, lr = protocol["steps"], protocol["lr"]
    if protocol["schedule"] == "poly":
        ours = Poly(peak=lr, total_steps=steps)
        schedule = {"type": "PolyLR", "eta_min": ours.floor, "power": ours.power}
        schedule |= {"begin": 0, "end": steps, "by_epoch": False}
    else:
        ours = Steps(peak=lr, total_steps=steps)
        schedule = {
            "type": "MultiStepLR",
            "milestones": [round(share * steps) for share in ours.milestones],
            "gamma": ours.gamma,
            "by_epoch": False,
        }
    optimizer = {"type": "SGD", "lr": lr, "momentum": SGD().momentum}
    hooks = {
        "timer": {"type": "IterTimerHook"},
        "logger": {"type": "LoggerHook", "interval": 50},
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {
            "type": "CheckpointHook",
            "by_epoch": False,
            "interval": protocol["every"],
        },
        "sampler_seed": {"type": "DistSamplerSeedHook"},
    }
    return {
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {**optimizer, "weight_decay": protocol["decay"]},
        },
        "param_scheduler": [schedule],
        "train_cfg": {
            "type": "IterBasedTrainLoop",
            "max_iters": steps,
            "val_interval": protocol["every"],
        },
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "default_hooks": hooks,
    }
