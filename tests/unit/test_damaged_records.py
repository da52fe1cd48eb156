"""Records whose bytes are damaged: named and counted, or refused; never trained on."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks.mutations.records import mutated_records, write_folder
from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.data.record_index import INDEX, masked_checksum, shard_name
from slotcon_tf.data.records import RecordReader, write_index, write_shard
from slotcon_tf.images.decoding import BadImage

SHARDS, PER_SHARD = 3, 4


def encoded(value):
    file = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Twelve grey images; number n has the level 10 n."""
    places = []
    for shard in range(SHARDS):
        numbers = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        images = [(f"photo {n}.png", encoded(10 * n)) for n in numbers]
        places.append(write_shard(tmp_path / shard_name(shard, SHARDS), images))
    write_index(tmp_path, places)
    return tmp_path


def change(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def flip(path, offset):
    change(path, offset, bytes([path.read_bytes()[offset] ^ 1]))


def place(folder, number):
    with np.load(folder / INDEX) as index:
        return index["place"][number].tolist()


def test_whole_records_are_as_tensorflow_reads_them(folder):
    reader = RecordReader(folder)
    paths = [str(folder / shard_name(n, SHARDS)) for n in range(SHARDS)]
    records = tf.data.TFRecordDataset(paths).as_numpy_iterator()
    for number, record in enumerate(records):
        example = tf.train.Example.FromString(record)
        image = example.features.feature["image"].bytes_list.value[0]
        assert reader.read(number) == image == encoded(10 * number)
    assert os.listdir(folder).count(INDEX) == 1 and len(os.listdir(folder)) == 4


DAMAGES = {
    "checksum of data": (lambda o, n: o + n + 1, "checksum is wrong .image 'photo 6"),
    "a pixel": (lambda o, n: o + n // 2, "checksum is wrong"),
    "length": (lambda o, n: o - 12, "its length is not"),
    "checksum of length": (lambda o, n: o - 3, "its length is not"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_replaced(folder, damage):
    where, reason = DAMAGES[damage]
    path = folder / shard_name(1, SHARDS)
    flip(path, where(*place(folder, 6)))
    source = open_source("records", folder)
    with pytest.raises(BadImage, match=reason):
        source.read(6)
    assert source.load(6)[0, 0, 0] in set(range(0, 120, 10)) - {60}
    assert list(source.bad.reasons) == [f"record 2 of {path}"]
    for number in set(range(12)) - {6}:
        assert (source.load(number) == 10 * number).all()
    assert len(list(crop_pair_dataset(source, batch_size=12, image_size=16).take(2)))


@pytest.mark.parametrize("length", [2**40, 2**63 - 1, 2**31, -1])
def test_a_length_that_cannot_be_is_refused_before_memory_is_taken(folder, length):
    """By the index, and by the shard where the index is damaged."""
    with np.load(folder / INDEX) as index:
        content = dict(index)
    offset = int(content["place"][5, 0])
    content["place"][5, 1] = length
    np.savez(folder / INDEX, **content)
    reader = RecordReader(folder)
    with pytest.raises(BadImage, match="are not in the shard"):
        reader.read(5)
    assert reader.read(6) == encoded(60)
    header = struct.pack("<q", length)
    header += struct.pack("<I", masked_checksum(header))
    change(folder / shard_name(1, SHARDS), offset - 12, header)
    (folder / INDEX).write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged from byte"):
        RecordReader(folder)


def test_a_record_larger_than_any_image_is_refused(folder):
    reader = RecordReader(folder, max_bytes=10)
    with pytest.raises(BadImage, match="more than the 10 of the largest image"):
        reader.read(0)


def test_a_damaged_index_is_made_anew(folder):
    whole = (folder / INDEX).read_bytes()
    truth = [RecordReader(folder).read(n) for n in range(12)]
    with np.load(folder / INDEX) as index:
        good = dict(index)
    damaged = [whole[:40], whole[:-30], b"", bytes(len(whole)), b"\n" + whole[9:]]
    for name, value in (
        ("place", good["place"].astype(float)),
        ("place", good["place"][:3]),
        ("shard", good["shard"] + 9),
        ("num_shards", np.array([3, 3])),
        ("num_shards", np.int64(2**40)),
        ("shard", np.int64(3)),
        ("place", good["place"].astype(object)),
    ):
        packed = io.BytesIO()
        np.savez(packed, **{**good, name: value})
        damaged.append(packed.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as parts:  # found by benchmarks.soak
        for name in good:
            parts.writestr(f"{name}.npy", b"pl\x90ce")
    damaged.append(packed.getvalue())
    for data in damaged:
        (folder / INDEX).write_bytes(data)
        reader = RecordReader(folder)
        assert [reader.read(n) for n in range(12)] == truth


def test_what_is_damaged_twice_is_refused_in_one_line(folder):
    whole = (folder / INDEX).read_bytes()
    (folder / INDEX).write_bytes(whole[:99])
    shard = folder / shard_name(1, SHARDS)
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ValueError, match="damaged from byte .*slotcon-prepare"):
        open_source("records", folder)
    os.remove(shard)
    with pytest.raises(ValueError, match="2 shards of 3") as caught:
        open_source("records", folder)
    assert "\n" not in str(caught.value)


def test_cut_and_missing_shards_cost_their_own_images(folder):
    shard = folder / shard_name(2, SHARDS)
    shard.write_bytes(shard.read_bytes()[: place(folder, 10)[0] + 5])
    source = open_source("records", folder, max_bad_share=0.9)
    images = [source.load(n) for n in range(12)]
    assert len(source.bad.reasons) == 2
    assert all((images[n] == 10 * n).all() for n in range(10))
    os.remove(shard)
    source = open_source("records", folder, max_bad_share=0.9)
    assert [source.load(n)[0, 0, 0] for n in range(8)] == list(range(0, 80, 10))
    source.load(9)
    assert len(source.bad.reasons) >= 1
    for number in (0, 1):
        os.remove(folder / shard_name(number, SHARDS))
    with pytest.raises(FileNotFoundError, match="none of 3"):
        open_source("records", folder)


def test_records_of_other_content(folder):
    path = folder / "others"
    path.mkdir()
    proto = tf.train.Example(features=tf.train.Features(feature={}))
    contents = [b"\xff" * 40, proto.SerializeToString(), b""]
    places, offset = [], 0
    with tf.io.TFRecordWriter(str(path / shard_name(0, 1))) as writer:
        for content in contents:
            writer.write(content)
            places.append((offset + 12, len(content)))
            offset += 16 + len(content)
    write_index(path, [np.array(places)])
    reader = RecordReader(path)
    for number in range(3):
        with pytest.raises(BadImage, match="holds no image"):
            reader.read(number)


def test_a_shard_that_is_no_file(folder):
    os.remove(folder / shard_name(0, SHARDS))
    os.symlink("/dev/zero", folder / shard_name(0, SHARDS))
    source = open_source("records", folder, max_bad_share=0.9)
    source.load(0)
    assert "not in the shard" in next(iter(source.bad.reasons.values()))


def test_mutations_end_in_images_or_documented_errors(tmp_path):
    seen = set()
    for name, shard, index in mutated_records(np.random.default_rng(5), 150):
        write_folder(tmp_path, shard, index)
        try:
            reader = RecordReader(tmp_path)
        except (ValueError, FileNotFoundError):
            seen.add("refused")
            continue
        for number in range(min(reader.num_images, 8)):
            try:
                reader.read(number)
                seen.add((name, "read"))
            except BadImage:
                seen.add("bad")
    assert {"refused", "bad", ("whole", "read")} <= seen
