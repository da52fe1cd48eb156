"""Packs a folder of images into TFRecord shards, for disks slow at small files.

    python -m trainers.prepare --data_dir=/data/coco --dataset=coco --output=/fast/coco
    python -m trainers.pretrain --dataset=records --data_dir=/fast/coco ...

The images' bytes are kept as they are. Bad images are named and left out.
"""

from slotcon_tf.runs import PrepareConfig, prepare
from slotcon_tf.runs.command import Command

main = Command("prepare", PrepareConfig, prepare, __doc__)

if __name__ == "__main__":
    main()
