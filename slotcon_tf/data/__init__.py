"""Images in: sources, the two-view recipe, and the embedded scenes.

The way of an image in training: a source (`open_source`, `open_images`) gives it by
its number, read and decoded (`slotcon_tf.images`); `crops` cuts two views of it;
`photometric` changes their colours and normalises them; `pipeline` makes batches.

Importing this costs nothing: what is named here is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slotcon_tf.lazy import lazy_names

if TYPE_CHECKING:
    from slotcon_tf.data.pipeline import crop_pair_dataset
    from slotcon_tf.data.source import Sample, Source
    from slotcon_tf.data.sources import open_images, open_source

__all__ = ["Sample", "Source", "crop_pair_dataset", "open_images", "open_source"]
_PLACES = {
    "Sample": "source",
    "Source": "source",
    "crop_pair_dataset": "pipeline",
    "open_images": "sources",
    "open_source": "sources",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
