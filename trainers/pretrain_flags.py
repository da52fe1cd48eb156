"""The flags of `trainers.pretrain`."""

from slotcon_tf.data.pipeline import AUGMENT_ON
from slotcon_tf.images.decoding import MAX_PIXELS
from slotcon_tf.runs.command_line import PREFIX, ModuleFlags
from slotcon_tf.runs.label_flags import define_label_flags
from slotcon_tf.runs.labelled_monitor import TASKS as MONITORED
from slotcon_tf.runs.strategy import STRATEGIES

MODULE = "trainers.pretrain"
OPTIMIZERS = ("lars", "sgd")
INIT_PARTS = ("auto", "model", "encoder")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def define_flags():
    """Defines every flag of `trainers.pretrain`, under its name."""
    define = ModuleFlags(MODULE)
    define.string("workdir", "runs/pretrain", "Folder that everything is written to.")
    define.string(
        "dataset",
        "folder",
        "folder, coco, coco_plus, imagenet, list, records, tfds:NAME, scenes or fake.",
    )
    define.string("data_dir", None, "Folder of the images, or the list file.")
    define.boolean(
        "allow_remote_paths", False, "A local list may name remote files (gs://)."
    )
    define.integer("image_size", 224, "Edge of the views in pixels.")
    define.real(
        "min_scale", 0.08, "Smallest area of a crop, share of the image.", high=1.0
    )
    define.choice("augment_on", "host", AUGMENT_ON, "Where colours are changed.")
    define.integer("max_pixels", MAX_PIXELS, "Larger images are skipped.")
    # None, not a default: a run of the days before these flags can go on.
    define.string(
        "pixel_range", None, "low,high of images of more than 8 bits; see README."
    )
    define.string("mean", None, "Of the images, three shares of 255: r,g,b.")
    define.string("std", None, "Of the images, as --mean; both default to ImageNet's.")
    define.boolean("vertical_flip", None, "Views are turned upside down, half of them.")
    define.boolean("rotate90", None, "Views are turned by 0 to 3 quarters.")
    define.real("max_bad_share", 0.1, "Stop when more of the images are bad.", high=1.0)
    define.string("arch", "resnet50", "Backbone; see slotcon_tf.BACKBONES.")
    define.string(
        "init_from", "", "Pretrained weights: file, directory, published name."
    )
    define.string(*PREFIX)
    define.choice("init_part", "auto", INIT_PARTS, "What is taken of --init_from.")
    define.integer("output_stride", 32, "Of the backbone: 8, 16 or 32.")
    define.integer("num_prototypes", 256, "K, the number of groups.")
    define.integer("hidden_dim", 4096, "Width of the heads' hidden layers.")
    define.integer("projection_dim", 256, "D, width of slots.")
    define.real("teacher_momentum", 0.99, "At step 0; rises to 1.", high=1.0)
    define.real("center_momentum", 0.9, "Share of the old center kept.", high=1.0)
    define.real("student_temperature", 0.1, "Of the student's assignments.")
    define.real("teacher_temperature", 0.07, "Of the teacher's assignments.")
    define.real("grouping_weight", 0.5, "Share of the grouping loss.", high=1.0)
    define.integer("batch_size", 512, "Images per step over all replicas.")
    define.integer("accumulate_steps", 1, "Parts of a replica's batch, to save memory.")
    define.boolean("remat", False, "Compute stages twice, to save memory.")
    define.integer("epochs", 800, "Passes over the data.")
    define.integer(
        "max_steps_per_epoch", 0, "Cut epochs to this many steps; 0: whole.", 0
    )
    define.choice("optimizer", "lars", OPTIMIZERS, "Optimizer.")
    define.real("base_lr", 1.0, "Learning rate at batch 256; scaled with the batch.")
    define.real("weight_decay", 1e-5, "Coupled into the gradient.")
    define.real("warmup_epochs", 5.0, "Length of the linear warm-up.")
    define.integer("seed", 0, "Of weights and data.", 0)
    define.choice(
        "precision", "auto", PRECISIONS, "Of the networks; auto: the faster here."
    )
    define.choice("strategy", "auto", STRATEGIES, "How replicas are placed.")
    define.string("tpu", "", "TPU name or address; local on a TPU VM.")
    define.choice("jit_compile", "auto", ("auto", "true", "false"), "XLA.")
    define.choice("resume", "auto", ("auto", "never"), "Continue what workdir holds.")
    define.integer("checkpoint_epochs", 1, "Epochs between checkpoints.")
    define.real("checkpoint_minutes", 0.0, "Minutes between more checkpoints; 0: none.")
    define.integer("checkpoint_steps", 0, "Steps between more checkpoints; 0: none.", 0)
    define.integer("keep_checkpoints", 3, "Newest checkpoints kept.")
    define.integer(
        "keep_every_epochs", 0, "Checkpoints of these epochs stay; 0: none.", 0
    )
    define.integer("max_skipped_steps", 0, "Steps that may be skipped for NaN.", 0)
    define.integer(
        "picture_epochs", 0, "Epochs between TensorBoard pictures; 0: none.", 0
    )
    define.integer("eval_every_epochs", 0, "Epochs between evaluations; 0: none.", 0)
    define.choice("eval_task", "groups", MONITORED, "What is evaluated on the way.")
    define.string("eval_dataset", "folders", "Labelled images; see trainers.evaluate.")
    define.string("eval_data_dir", None, "Their folder.")
    define.string("eval_split", "val", "Split that is evaluated.")
    define.string("eval_train_split", "train", "Split that knn learns from.")
    define_label_flags(define, "eval_")
    define.integer("eval_images", 64, "Images of it, evenly spaced.")
    define.integer(
        "eval_crop_size", None, "Edge of central squares; 0: whole images.", 0
    )
    define.real(
        "evaluation_scale", 1.0, "Scenes are enlarged by this for evaluation.", 0.1
    )
    define.boolean("export", True, "Write a SavedModel at the end.")
