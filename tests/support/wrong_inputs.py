"""Places that a command cannot use: missing, empty, unreadable, truncated, wrong kind.

Each maker is a function of an empty folder and of good inputs (`Good`) that returns the
path to give to the command.
"""

import os
import pathlib
import shutil
from json import dumps as text_of

import keras
import numpy as np
from PIL import Image

from slotcon_client.extraction import Images, extract
from slotcon_tf import backbone
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.signatures import ServingOptions
from tests.support.checkpoint_case import save_at, store
from tests.support.extraction_case import Sizes
from tests.support.server_case import write_certificates
from tests.support.small_case import small_model

NO_READING = pathlib.Path("/proc/self/mem")  # a file by its kind, whose reading fails


class Good:
    """One good input of every kind, in a folder.

    Attributes:
        root: The folder, which is a labelled set too.
        photos: Folder of two images.
        broken: Folder of an image that is none.
        list: Text file that names them.
        classes: Text file of class names.
        encoder: .keras file.
        checkpoint: Of a run.
        export: Folder of a version.
        served: Folder of all versions.
        features: Table of a whole extraction.
        key, certificate: PEM files, where openssl is there to make them.
        coco: Folder of images and COCO's annotations of their objects.
    """

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        for folder in ("photos", "val", "valannot", "train", "trainannot"):
            (root / folder).mkdir()
            for index in range(2):
                top, shape = (2, (32, 32)) if "annot" in folder else (256, (32, 32, 3))
                pixels = rng.integers(0, top, shape, np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{index}.png")
        self.photos = root / "photos"
        self.coco = _coco(root / "coco", self.photos)
        self.broken = _half(self.photos / "0.png", root / "broken" / "0.png").parent
        self.list = root / "list.txt"
        self.list.write_text("photos/0.png\nphotos/1.png\n")
        self.classes = root / "classes.names"
        self.classes.write_text("0 one\n1 other\n")
        keras.utils.set_random_seed(0)
        self.encoder = root / "encoder.keras"
        sizes = {"width": 4, "stage_depths": (1, 1, 1, 1)}
        backbone("resnet18", **sizes).save(self.encoder)
        model = small_model()
        saved = store(root / "run" / "checkpoints", model)
        save_at(saved, 2)
        self.checkpoint = saved.latest()
        options = ServingOptions(image_size=32, mask_size=32, max_objects=2)
        self.served = root / "export"
        self.export = export_model(
            model, self.served, options=options, warmup_batches=()
        )
        self.features = root / "features.npz"
        images = Images(str(root), (str(self.photos / "0.png"),))
        extract(Sizes().predict, images, self.features, settings={}, convert=bytes)
        self.key = self.certificate = self.classes  # refused before what is tried
        if shutil.which("openssl"):
            write_certificates(root)
            self.key, self.certificate = root / "server.key", root / "server.pem"


def _coco(folder, photos):
    """Two splits of two images with an object each."""
    (folder / "annotations").mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "a"}]}
    for number, path in enumerate(sorted(photos.iterdir()), 1):
        image = {"id": number, "file_name": path.name, "height": 32, "width": 32}
        outline = [4, 4, 20, 4, 20, 24, 4, 24]
        thing = {"id": number, "image_id": number, "category_id": 3, "area": 320}
        thing |= {"bbox": [4, 4, 16, 20], "segmentation": [outline], "iscrowd": 0}
        content["images"].append(image)
        content["annotations"].append(thing)
    for split in ("train", "val"):
        shutil.copytree(photos, folder / split)
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(text_of(content))
    return folder


def _half(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return to


def _link(root, target, name="link"):
    (root / name).symlink_to(target)
    return root / name


def missing(root, good):
    return root / "none"


def dangling(root, good):
    return _link(root, root / "none")


def empty_folder(root, good):
    (root / "empty").mkdir()
    return root / "empty"


def empty_file(root, good):
    (root / "empty.keras").touch()
    return root / "empty.keras"


def empty_text(root, good):
    (root / "empty.txt").touch()
    return root / "empty.txt"


def unreadable(root, good):
    return _link(root, NO_READING)


def unreadable_image(root, good):
    (root / "photos").mkdir()
    _link(root / "photos", NO_READING, "a.jpg")
    return root / "photos"


def pipe(root, good):
    """Opened, it would be waited at for ever."""
    os.mkfifo(root / "pipe")
    return root / "pipe"


def folder_of_a_pipe(root, good):
    (root / "pipes").mkdir()
    os.mkfifo(root / "pipes" / "a.jpg")
    return root / "pipes"


def photo(root, good):
    Image.new("RGB", (32, 32)).save(root / "photo.jpg")
    return root / "photo.jpg"


def json(root, good):
    (root / "a.json").write_text('{"images": [1, 2]}\n')
    return root / "a.json"


def photos(root, good):
    return good.photos


def encoder_file(root, good):
    return good.encoder


def exported(root, good):
    return good.export


def truncated_photo(root, good):
    _half(good.photos / "0.png", root / "photos" / "0.png")
    return root / "photos"


def truncated_objects(root, good):
    shutil.copytree(good.coco, root / "coco")
    name = "annotations/instances_val.json"
    _half(good.coco / name, root / "coco" / name)
    return root / "coco"


def truncated_labels(root, good):
    for folder in ("val", "train"):
        shutil.copytree(good.root / folder, root / "set" / folder)
        for path in (good.root / f"{folder}annot").iterdir():
            _half(path, root / "set" / f"{folder}annot" / path.name)
    return root / "set"


def truncated_model(root, good):
    return _half(good.encoder, root / "half.keras")


def truncated_weights(root, good):
    (root / "half.pth").write_bytes(b"PK\x03\x04 broken")
    return root / "half.pth"


def truncated_checkpoint(root, good):
    shutil.copytree(good.checkpoint, root / "step_000000002")
    data = next(good.checkpoint.glob("state.data*"))
    _half(data, root / "step_000000002" / data.name)
    return root / "step_000000002"


def truncated_export(root, good):
    shutil.copytree(good.export, root / "1")
    _half(good.export / "saved_model.pb", root / "1" / "saved_model.pb")
    return root / "1"


def truncated_variables(root, good):
    shutil.copytree(good.export, root / "1")
    data = next((good.export / "variables").glob("*.data*"))
    _half(data, root / "1" / "variables" / data.name)
    return root / "1"


# Of what a command reads itself; each kind at least once.
ANY = (missing, dangling, empty_folder, empty_text, unreadable, pipe, json)
OBJECTS = (*ANY, photo, photos, truncated_objects)
OBJECTS_AGAIN = (missing, empty_folder, truncated_objects)
IMAGES = (
    *ANY,
    *(unreadable_image, folder_of_a_pipe, truncated_photo, encoder_file),
)
TEXT = (missing, dangling, empty_folder, empty_text, unreadable, pipe, photo)
LABELLED = (*ANY, photo, photos, truncated_labels)
MODEL = (
    *(*ANY, empty_file, photo, photos, exported),
    *(truncated_model, truncated_weights, truncated_checkpoint),
)
EXPORT = (*ANY, photos, encoder_file, truncated_export, truncated_variables)
# Of what is read as another flag's place is, by the same function.
MODEL_AGAIN = (missing, empty_folder, unreadable, truncated_checkpoint, photo)
IMAGES_AGAIN = (missing, empty_folder, unreadable_image, truncated_photo, json)
TEXT_AGAIN = (missing, empty_text, unreadable, pipe, photo)
LABELLED_AGAIN = (missing, empty_folder, unreadable, truncated_labels, photo)
EXPORT_AGAIN = (missing, empty_folder, truncated_export, photos)


def no_folder(root, good):
    """Where a folder is to be made: a file."""
    (root / "kept").write_text("kept")
    return root / "kept"


def below_a_file(root, good):
    return no_folder(root, good) / "out"


def no_file(root, good):
    """Where a file is to be written: a folder."""
    (root / "kept").mkdir()
    (root / "kept" / "inside").write_text("kept")
    return root / "kept"
