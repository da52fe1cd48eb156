"""Ten lines: pretrain on a folder of photographs, take the encoder."""

import sys

from slotcon_tf import LARS, SlotCon, WarmupCosine, backbone
from slotcon_tf.data import crop_pair_dataset

dataset = crop_pair_dataset(sys.argv[1], batch_size=8, image_size=64)
steps = 2 * len(dataset)
model = SlotCon(backbone("resnet10"), total_steps=steps, num_prototypes=16)
schedule = WarmupCosine(peak=0.5, warmup_steps=1, total_steps=steps)
model.compile(optimizer=LARS(schedule))
model.fit(dataset, epochs=2)
model.feature_extractor().save("encoder.keras")
