"""The flags of `trainers.pretrain`."""

from absl import flags

from slotcon_tf.data.decoding import MAX_PIXELS
from slotcon_tf.data.pipeline import AUGMENT_ON
from trainers.labelled_monitor import TASKS as MONITORED
from trainers.strategy import STRATEGIES

MODULE = "trainers.pretrain"
OPTIMIZERS = ("lars", "sgd")
INIT_PARTS = ("auto", "model", "encoder")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def define_flags():
    """Defines every flag of `trainers.pretrain`, under its name."""
    text, number, real = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    own = {"module_name": MODULE}

    def string(name, default, help_text):
        text(name, default, help_text, **own)

    def integer(name, default, help_text, low=1):
        number(name, default, help_text, lower_bound=low, **own)

    def float_(name, default, help_text, low=0.0, high=None):
        real(name, default, help_text, lower_bound=low, upper_bound=high, **own)

    def choice(name, default, values, help_text):
        flags.DEFINE_enum(name, default, values, help_text, **own)

    string("workdir", "runs/pretrain", "Folder that everything is written to.")
    string(
        "dataset",
        "folder",
        "folder, coco, coco_plus, imagenet, list, records, tfds:NAME, scenes or fake.",
    )
    string("data_dir", None, "Folder of the images, or the list file.")
    integer("image_size", 224, "Edge of the views in pixels.")
    float_("min_scale", 0.08, "Smallest area of a crop, share of the image.", high=1.0)
    choice("augment_on", "host", AUGMENT_ON, "Where colours are changed.")
    integer("max_pixels", MAX_PIXELS, "Larger images are skipped.")
    float_("max_bad_share", 0.1, "Stop when more of the images are bad.", high=1.0)
    string("arch", "resnet50", "Backbone; see slotcon_tf.BACKBONES.")
    string("init_from", "", "Pretrained weights: file, directory, published name.")
    choice("init_part", "auto", INIT_PARTS, "What is taken of --init_from.")
    integer("output_stride", 32, "Of the backbone: 8, 16 or 32.")
    integer("num_prototypes", 256, "K, the number of groups.")
    integer("hidden_dim", 4096, "Width of the heads' hidden layers.")
    integer("projection_dim", 256, "D, width of slots.")
    float_("teacher_momentum", 0.99, "At step 0; rises to 1.", high=1.0)
    float_("center_momentum", 0.9, "Share of the old center kept.", high=1.0)
    float_("student_temperature", 0.1, "Of the student's assignments.")
    float_("teacher_temperature", 0.07, "Of the teacher's assignments.")
    float_("grouping_weight", 0.5, "Share of the grouping loss.", high=1.0)
    integer("batch_size", 512, "Images per step over all replicas.")
    integer("accumulate_steps", 1, "Parts of a replica's batch, to save memory.")
    flags.DEFINE_bool("remat", False, "Compute stages twice, to save memory.", **own)
    integer("epochs", 800, "Passes over the data.")
    integer("max_steps_per_epoch", 0, "Cut epochs to this many steps; 0: whole.", 0)
    choice("optimizer", "lars", OPTIMIZERS, "Optimizer.")
    float_("base_lr", 1.0, "Learning rate at batch 256; scaled with the batch.")
    float_("weight_decay", 1e-5, "Coupled into the gradient.")
    float_("warmup_epochs", 5.0, "Length of the linear warm-up.")
    integer("seed", 0, "Of weights and data.", 0)
    choice("precision", "auto", PRECISIONS, "Of the networks; auto: the faster here.")
    choice("strategy", "auto", STRATEGIES, "How replicas are placed.")
    string("tpu", "", "TPU name or address; local on a TPU VM.")
    choice("jit_compile", "auto", ("auto", "true", "false"), "XLA.")
    choice("resume", "auto", ("auto", "never"), "Continue what workdir holds.")
    integer("checkpoint_epochs", 1, "Epochs between checkpoints.")
    float_("checkpoint_minutes", 0.0, "Minutes between more checkpoints; 0: none.")
    integer("checkpoint_steps", 0, "Steps between more checkpoints; 0: none.", 0)
    integer("keep_checkpoints", 3, "Newest checkpoints kept.")
    integer("keep_every_epochs", 0, "Checkpoints of these epochs stay; 0: none.", 0)
    integer("max_skipped_steps", 0, "Steps that may be skipped for NaN.", 0)
    integer("picture_epochs", 0, "Epochs between TensorBoard pictures; 0: none.", 0)
    integer("eval_every_epochs", 0, "Epochs between evaluations; 0: none.", 0)
    choice("eval_task", "groups", MONITORED, "What is evaluated on the way.")
    string("eval_dataset", "folders", "Labelled images; see trainers.evaluate.")
    string("eval_data_dir", None, "Their folder.")
    string("eval_split", "val", "Split that is evaluated.")
    string("eval_train_split", "train", "Split that knn learns from.")
    integer("eval_images", 64, "Images of it, evenly spaced.")
    integer("eval_crop_size", None, "Edge of central squares; 0: whole images.", 0)
    float_("evaluation_scale", 1.0, "Scenes are enlarged by this for evaluation.", 0.1)
    flags.DEFINE_bool("export", True, "Write a SavedModel at the end.", **own)
