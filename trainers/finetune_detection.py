"""Trains a Mask R-CNN on a pretrained encoder: the paper's detection protocol.

    python -m trainers.finetune_detection --recipe=coco_mask_rcnn \\
        --init_from=runs/coco --data_dir=/data/coco

Writes into the work directory: finetune_detection.flags (every flag; repeats the run),
checkpoints/, history.csv, tensorboard/, detector.keras (loads after
`import slotcon_tf.detection`), scores.json and results.json (of --val_split, newest
evaluation: average precision, and what was found in COCO's layout), detections.png and
finished.json (what was made after the last step). Given again after the end, the
command writes nothing, or what is missing.

The exit status is 143 after SIGTERM or Ctrl-C, whose state is saved, 2 after an error
in the flags, and 1 after another one, or where detector.keras or scores.json could not
be written; evaluation, history, TensorBoard and pictures that fail are warned of.
"""

from slotcon_tf.runs import DetectionConfig, finetune_detection
from slotcon_tf.runs.command import Command

main = Command("finetune_detection", DetectionConfig, finetune_detection, __doc__)

if __name__ == "__main__":
    main()
