"""The flags of `trainers.finetune_segmentation`."""

from absl import flags

from slotcon_tf.data.labelled import SEGMENTED
from slotcon_tf.segmentation import HEADS
from trainers.strategy import STRATEGIES

MODULE = "trainers.finetune_segmentation"
SCHEDULES = ("poly", "steps")
# Not float16: the step scales no loss.
PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def define_flags():
    """Defines every flag of `trainers.finetune_segmentation`, under its name."""
    own = {"module_name": MODULE}

    def string(name, default, help_text):
        flags.DEFINE_string(name, default, help_text, **own)

    def integer(name, default, help_text, low=1):
        flags.DEFINE_integer(name, default, help_text, lower_bound=low, **own)

    def float_(name, default, help_text, low=0.0, high=None):
        flags.DEFINE_float(
            name, default, help_text, lower_bound=low, upper_bound=high, **own
        )

    def choice(name, default, values, help_text):
        flags.DEFINE_enum(name, default, values, help_text, **own)

    string("workdir", "runs/finetune", "Folder that everything is written to.")
    string(
        "init_from",
        "",
        "Work directory of a run, finished or not; published name; .keras, .pth or "
        ".safetensors file, of a whole model or an encoder. '': random weights.",
    )
    string("arch", "resnet50", "Backbone without --init_from; slotcon_tf.BACKBONES.")
    string("dataset", "voc", f"Labelled images: {', '.join(SEGMENTED)}.")
    string("data_dir", None, "Folder of the labelled images.")
    string("train_split", "train", "What is learned from.")
    string("val_split", "val", "What is measured.")
    string("class_file", None, "Text file: 'id name' per line.")
    flags.DEFINE_list("void_ids", [], "Ids that count nowhere, beside 255.", **own)
    integer("max_train_images", None, "Evenly spaced images of --train_split.")
    integer("max_val_images", None, "Evenly spaced images of --val_split.")
    flags.DEFINE_list(
        "scale",
        ["2049", "513"],
        "Long and short edge that images are fitted into before the random factor, "
        "and for evaluation; pixels.",
        **own,
    )
    float_("min_ratio", 0.5, "Smallest random factor of --scale.", 0.01)
    float_("max_ratio", 2.0, "Largest random factor of --scale.", 0.01)
    integer("crop_size", 513, "Edge of the crops in pixels.", 8)
    float_("cat_max_ratio", 1.0, "Largest share of a class in a crop.", high=1.0)
    flags.DEFINE_bool("distort", False, "Change colours, as for ADE20K.", **own)
    choice("head", "d6", tuple(HEADS), "FCN; d6: output stride 16, d8: 8.")
    integer(
        "sliding_stride", 0, "Between windows of --crop_size in evaluation; 0: none.", 0
    )
    integer("batch_size", 16, "Images per step over all replicas.")
    integer("steps", 30_000, "Of the whole run.")
    choice("schedule", "steps", SCHEDULES, "steps: times 0.1 at 70% and 90%.")
    float_("base_lr", 0.003, "Learning rate of this very batch: it is not scaled.")
    float_("weight_decay", 1e-4, "Coupled into the gradient.")
    integer("eval_every_steps", 0, "Divides --steps; 0: ten times in the run.", 0)
    integer("seed", 0, "Of weights and data.", 0)
    choice("precision", "auto", PRECISIONS, "Of the network; auto: the faster here.")
    choice("strategy", "auto", STRATEGIES, "How replicas are placed.")
    string("tpu", "", "TPU name or address; local on a TPU VM.")
    choice("jit_compile", "auto", ("auto", "true", "false"), "XLA.")
    choice("resume", "auto", ("auto", "never"), "Continue what workdir holds.")
    integer("checkpoint_steps", 0, "Steps between more checkpoints; 0: none.", 0)
    float_("checkpoint_minutes", 0.0, "Minutes between more checkpoints; 0: none.")
    integer("keep_checkpoints", 3, "Newest checkpoints kept.")
    integer("num_pictures", 4, "Images in masks.png; 0: no picture.", 0)
