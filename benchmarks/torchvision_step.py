"""torchvision's Mask R-CNN of the same layers, in a process without TensorFlow.

A script of its own, which knows nothing of this project: both libraries in one process
end in a segmentation fault. Called by `benchmarks.detection`, with a file of a batch,
an architecture, a number of classes and a number of timed steps; prints JSON.
"""

import json
import resource
import sys
import time


def main(path, arch, classes, rounds):
    import numpy as np
    import torch
    import torchvision
    from torch import nn
    from torchvision.models import detection, resnet
    from torchvision.models.detection import backbone_utils, faster_rcnn, mask_rcnn

    batch, norm, convs = dict(np.load(path)), nn.BatchNorm2d, [256] * 4
    height, width = batch["images"].shape[1:3]
    body = getattr(resnet, arch)(weights=None, norm_layer=norm)
    model = detection.MaskRCNN(
        backbone_utils._resnet_fpn_extractor(body, 5, norm_layer=norm),
        num_classes=int(classes) + 1,
        min_size=min(height, width),
        max_size=max(height, width),
        rpn_post_nms_top_n_train=1000,
        box_head=faster_rcnn.FastRCNNConvFCHead(
            (256, 7, 7), convs, [1024], norm_layer=norm
        ),
        mask_head=mask_rcnn.MaskRCNNHeads(256, convs, 1, norm_layer=norm),
    )
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    images = [torch.tensor(image).permute(2, 0, 1) for image in batch["images"]]
    targets = []
    for boxes, numbers in zip(batch["boxes"], batch["classes"], strict=True):
        # torchvision takes no polygons; these are boxes.
        masks = torch.zeros((len(boxes), height, width), dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1
        labels = torch.tensor(numbers).long() + 1
        targets.append({"boxes": torch.tensor(boxes), "labels": labels, "masks": masks})

    def run():
        optimizer.zero_grad()
        total = sum(model(images, targets).values())
        total.backward()
        optimizer.step()
        return float(total)

    wall, processor = timed(run, int(rounds))
    version = (
        f"torchvision {torchvision.__version__}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"wall": wall, "processor": processor, "peak": peak, "version": version}
        )
    )


def timed(run, rounds):
    """Seconds of each call by the clock and of the processor, after one untimed."""
    run()
    wall, processor = [], []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return wall, processor


if __name__ == "__main__":
    main(*sys.argv[1:])
