"""The published recipes: every hyperparameter of the four released models.

Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A, and the authors' scripts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One published training run.

    Attributes:
        dataset: Name for `slotcon_tf.data.open_source`.
        num_images: Images of that data set.
        epochs: Passes over it.
        num_prototypes: K.
        The others are the settings that all four share.
    """

    dataset: str
    num_images: int
    epochs: int
    num_prototypes: int
    arch: str = "resnet50"
    image_size: int = 224
    min_scale: float = 0.08
    hidden_dim: int = 4096
    projection_dim: int = 256
    batch_size: int = 512
    base_lr: float = 1.0
    weight_decay: float = 1e-5
    warmup_epochs: int = 5
    optimizer: str = "lars"

    @property
    def peak_lr(self):
        """Learning rate after the warm-up: linear in the batch."""
        return self.base_lr * self.batch_size / 256

    @property
    def steps_per_epoch(self):
        return self.num_images // self.batch_size


RECIPES = {
    "coco": Recipe("coco", 118_287, 800, 256),
    "coco_plus": Recipe("coco_plus", 241_690, 800, 256),
    "imagenet_100ep": Recipe("imagenet", 1_281_167, 100, 2048),
    "imagenet_200ep": Recipe("imagenet", 1_281_167, 200, 2048),
}
