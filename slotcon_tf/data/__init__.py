"""Images in: sources, the two-view recipe, and the embedded scenes."""

from slotcon_tf.data.pipeline import crop_pair_dataset
from slotcon_tf.data.sources import open_images, open_source

__all__ = ["crop_pair_dataset", "open_images", "open_source"]
