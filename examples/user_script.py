"""Ten lines of somebody who has installed slotcon_tf: train, save, load, look."""

import keras
import numpy as np

from slotcon_tf import LARS, SlotCon, WarmupCosine, __version__, backbone
from slotcon_tf.data import crop_pair_dataset, open_images

images = np.random.default_rng(0).integers(0, 256, (16, 72, 96, 3), dtype=np.uint8)
views = crop_pair_dataset(open_images(images), batch_size=4, image_size=32)
model = SlotCon(backbone("resnet10"), total_steps=4, num_prototypes=8, hidden_dim=64)
model.compile(optimizer=LARS(WarmupCosine(peak=1.0, warmup_steps=1, total_steps=4)))
model.fit(views, steps_per_epoch=2, epochs=2, verbose=2)
model.save("slotcon.keras")
again = SlotCon.from_preset("slotcon.keras")
print(__version__, keras.__version__, again(np.zeros((1, 64, 64, 3)))["map"].shape)
