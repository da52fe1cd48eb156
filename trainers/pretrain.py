"""Pretrains SlotCon: `python -m trainers.pretrain --recipe=coco --data_dir=...`

Writes into the work directory: pretrain.flags (every flag; repeats the run),
checkpoints/, model.json (the model's configuration), history.csv, tensorboard/,
slots.png, export/1/ (a SavedModel of the teacher), slotcon.keras (the whole model),
finished.json (what was made after the last step), skipped.txt (bad images, if any) and,
on scenes, scores.json. Given again after the end, the command writes nothing, or what
is missing.

The exit status is 143 after SIGTERM or Ctrl-C, whose state is saved, 2 after an error
in the flags, and 1 after another one, or where slotcon.keras or the export could not be
written; evaluation, history, TensorBoard and pictures that fail are warned of.
"""

from slotcon_tf.runs import PretrainConfig, pretrain
from slotcon_tf.runs.command import Command

main = Command("pretrain", PretrainConfig, pretrain, __doc__)

if __name__ == "__main__":
    main()
