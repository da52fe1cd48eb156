"""Measures a trained model: `python -m trainers.evaluate --model=runs/small ...`

    python -m trainers.evaluate --model=runs/small --task=groups,linear \\
        --dataset=folders --data_dir=camvid

Every score stands beside that of the same network untrained, with the difference, and
with 95% intervals of a bootstrap over images. A run's scores are also written to its
evaluation/TASK_DATASET_SPLIT_NETWORK.json, which trainers.visualize shows. With --all
every checkpoint of a run is measured, into one table and one curve per task there; the
same command goes on with those that are new.

Tasks:
  groups          the winning prototype of every pixel against label maps: mIoU and
                  pixel accuracy after one-to-one matching, and many to one, NMI, ARI
  linear          a 1x1 convolution on the frozen map, trained on --train_split
  retrieval       slots find slots of their class in --train_split
  knn             classes of whole images by the nearest images of --train_split
  classification  and by logistic regression
  detection       objects that a detector finds, against boxes and masks: COCO's average
                  precision; what it finds is written, too, as COCO's results. Alone:
                  neither with other tasks, nor with an untrained network or intervals
"""

from slotcon_tf.runs import EvaluateConfig, evaluate
from slotcon_tf.runs.command import Command

main = Command("evaluate", EvaluateConfig, evaluate, __doc__)

if __name__ == "__main__":
    main()
