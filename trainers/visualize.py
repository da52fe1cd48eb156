"""A report of a run in one HTML file, with pictures of what it has learnt.

    python -m trainers.visualize --model=runs/photos --data_dir=photos

Shows scores and training curves where the run's folder has them, groups over images,
dense features, the nearest images of every prototype, and how much each is used. The
page needs no network. Of an encoder alone only the dense features are shown. Of a
detector: the objects that it finds, beside the true ones with --dataset=scenes, coco or
tfds:NAME, in place of groups and prototypes.
"""

from slotcon_tf.runs import VisualizeConfig, visualize
from slotcon_tf.runs.command import Command

main = Command("visualize", VisualizeConfig, visualize, __doc__)

if __name__ == "__main__":
    main()
