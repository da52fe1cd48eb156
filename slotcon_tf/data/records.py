"""TFRecord shards of encoded images with an index, for disks slow at small files.

`images-00000-of-00008.tfrecord` hold tf.train.Example protos with the features `image`
(the file's bytes, unchanged) and `name`. `index.npz` says where each record's proto
lies, so that any image is read by its number: epochs are full permutations without a
shuffle buffer, and a stream starts anywhere.
"""

import io
import os

import numpy as np
import tensorflow as tf

INDEX = "index.npz"
_LENGTH_AND_CHECKSUM = 12  # bytes before a record's data (TFRecord format)
_CHECKSUM = 4  # bytes behind it


def shard_name(shard, num_shards):
    return f"images-{shard:05d}-of-{num_shards:05d}.tfrecord"


def write_shard(path, images):
    """Writes one shard.

    Args:
        path: Of the new file.
        images: Iterable of (name, bytes).

    Returns:
        int64 (N, 2): offset and length of each proto in the file.
    """
    places, offset = [], 0
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for name, data in images:
            features = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for key, value in (("image", data), ("name", name.encode()))
            }
            proto = tf.train.Example(features=tf.train.Features(feature=features))
            record = proto.SerializeToString()
            writer.write(record)
            places.append((offset + _LENGTH_AND_CHECKSUM, len(record)))
            offset += _LENGTH_AND_CHECKSUM + len(record) + _CHECKSUM
    return np.asarray(places, np.int64).reshape(-1, 2)


def write_index(folder, shard_places):
    """Writes the index; last, so that a folder with an index is whole."""
    shards = [np.full(len(p), i, np.int64) for i, p in enumerate(shard_places)]
    path = os.path.join(os.fspath(folder), INDEX)
    packed = io.BytesIO()
    np.savez(
        packed,
        place=np.concatenate(shard_places),
        shard=np.concatenate(shards),
        num_shards=len(shard_places),
    )
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(packed.getvalue())


class RecordReader:
    """Random access to the images of a folder of shards.

    Raises:
        FileNotFoundError: If the folder has no index.
    """

    def __init__(self, folder):
        self.folder = os.fspath(folder or "")
        path = os.path.join(self.folder, INDEX)
        if not tf.io.gfile.exists(path):
            raise FileNotFoundError(
                f"Dataset 'records' needs {path}. Received: no such file. Make it with "
                "python -m trainers.prepare."
            )
        with tf.io.gfile.GFile(path, "rb") as file:
            index = np.load(io.BytesIO(file.read()))
            self._place, self._shard = index["place"], index["shard"]
            self._num_shards = int(index["num_shards"])
        self.num_images = len(self._place)

    def read(self, number):
        """The encoded image `number`."""
        offset, length = map(int, self._place[number])
        name = shard_name(int(self._shard[number]), self._num_shards)
        # One open file per read: threads share no position.
        with tf.io.gfile.GFile(os.path.join(self.folder, name), "rb") as file:
            file.seek(offset)
            record = file.read(length)
        example = tf.train.Example.FromString(record)
        return example.features.feature["image"].bytes_list.value[0]
