"""Pretrains SlotCon: `python -m trainers.pretrain --recipe=coco --data_dir=...`

Writes into the work directory: pretrain.flags (every flag; repeats the run),
checkpoints/, model.json (the model's configuration), history.csv, tensorboard/,
slots.png, export/1/ (a SavedModel of the teacher), slotcon.keras (the whole model),
skipped.txt (bad images, if any) and, on scenes, scores.json.

The exit status is 143 after SIGTERM or Ctrl-C, whose state is saved, 2 after an error
in the flags, and 1 after another one.
"""

from slotcon_tf.runs import PretrainConfig, pretrain
from slotcon_tf.runs.command import Command

main = Command("pretrain", PretrainConfig, pretrain, __doc__)

if __name__ == "__main__":
    main()
