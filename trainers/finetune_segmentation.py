"""Fine-tunes an encoder for segmentation: the paper's FCN protocols.

    python -m trainers.finetune_segmentation --recipe=voc_fcn \
        --init_from=runs/coco --data_dir=/data/VOCdevkit/VOC2012

Writes into the work directory: finetune.flags (every flag; repeats the run),
checkpoints/, history.csv, tensorboard/, scores.json (of --val_split, newest
evaluation), segmenter.keras (loads after `import slotcon_tf.segmentation`), masks.png
and finished.json (what was made after the last step). Given again after the end, the
command writes nothing, or what is missing.

The exit status is 143 after SIGTERM or Ctrl-C, whose state is saved, 2 after an error
in the flags, and 1 after another one, or where segmenter.keras or scores.json could not
be written; evaluation, history, TensorBoard and pictures that fail are warned of.
"""

from slotcon_tf.runs import FinetuneConfig, finetune
from slotcon_tf.runs.command import Command

main = Command("finetune_segmentation", FinetuneConfig, finetune, __doc__)

if __name__ == "__main__":
    main()
