"""The flags of `trainers.finetune_segmentation`."""

from slotcon_tf.data.labelled import SEGMENTED
from slotcon_tf.runs.command_line import PREFIX, ModuleFlags
from slotcon_tf.runs.label_flags import define_label_flags
from slotcon_tf.runs.strategy import STRATEGIES
from slotcon_tf.segmentation import HEADS

MODULE = "trainers.finetune_segmentation"
SCHEDULES = ("poly", "steps")
# Not float16: the step scales no loss.
PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def define_flags():
    """Defines every flag of `trainers.finetune_segmentation`, under its name."""
    define = ModuleFlags(MODULE)
    define.string("workdir", "runs/finetune", "Folder that everything is written to.")
    define.string(
        "init_from",
        "",
        "Work directory of a run, finished or not; published name; .keras, .pth or "
        ".safetensors file, of a whole model or an encoder. '': random weights.",
    )
    define.string(*PREFIX)
    define.string(
        "arch", "resnet50", "Backbone without --init_from; slotcon_tf.BACKBONES."
    )
    define.string("dataset", "voc", f"Labelled images: {', '.join(SEGMENTED)}.")
    define.string("data_dir", None, "Folder of the labelled images.")
    define.string("train_split", "train", "What is learned from.")
    define.string("val_split", "val", "What is measured.")
    define_label_flags(define)
    define.integer("max_train_images", None, "Evenly spaced images of --train_split.")
    define.integer("max_val_images", None, "Evenly spaced images of --val_split.")
    define.listed(
        "scale",
        ["2049", "513"],
        "Long and short edge that images are fitted into before the random factor, "
        "and for evaluation; pixels.",
    )
    define.real("min_ratio", 0.5, "Smallest random factor of --scale.", 0.01)
    define.real("max_ratio", 2.0, "Largest random factor of --scale.", 0.01)
    define.integer("crop_size", 513, "Edge of the crops in pixels.", 8)
    define.real("cat_max_ratio", 1.0, "Largest share of a class in a crop.", high=1.0)
    define.boolean("distort", False, "Change colours, as for ADE20K.")
    define.choice("head", "d6", tuple(HEADS), "FCN; d6: output stride 16, d8: 8.")
    define.integer(
        "sliding_stride", 0, "Between windows of --crop_size in evaluation; 0: none.", 0
    )
    define.integer("batch_size", 16, "Images per step over all replicas.")
    define.integer("steps", 30_000, "Of the whole run.")
    define.choice("schedule", "steps", SCHEDULES, "steps: times 0.1 at 70% and 90%.")
    define.real("base_lr", 0.003, "Learning rate of this very batch: it is not scaled.")
    define.real("weight_decay", 1e-4, "Coupled into the gradient.")
    define.integer(
        "eval_every_steps", 0, "Divides --steps; 0: ten times in the run.", 0
    )
    define.integer("seed", 0, "Of weights and data.", 0)
    define.choice(
        "precision", "auto", PRECISIONS, "Of the network; auto: the faster here."
    )
    define.choice("strategy", "auto", STRATEGIES, "How replicas are placed.")
    define.string("tpu", "", "TPU name or address; local on a TPU VM.")
    define.choice("jit_compile", "auto", ("auto", "true", "false"), "XLA.")
    define.choice("resume", "auto", ("auto", "never"), "Continue what workdir holds.")
    define.integer("checkpoint_steps", 0, "Steps between more checkpoints; 0: none.", 0)
    define.real("checkpoint_minutes", 0.0, "Minutes between more checkpoints; 0: none.")
    define.integer("keep_checkpoints", 3, "Newest checkpoints kept.")
    define.integer("num_pictures", 4, "Images in masks.png; 0: no picture.", 0)
