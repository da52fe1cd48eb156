"""What a server of models may do wrong, over gRPC and REST, by its name.

Features are made of the files' bytes (`features_of`), so that a row that looks like
features can be told from one that is.
"""

import hashlib
import time

import grpc
import numpy as np

VERSION, CHANNELS = 7, 4
STALL = 20.0  # seconds; no client waits so long
SIGNATURE = {
    "pooled": ("float32", (-1, CHANNELS)),
    "ok": ("bool", (-1,)),
    "reason": ("int32", (-1,)),
}


def features_of(data):
    """float32 (CHANNELS,) above 0, of a file's bytes."""
    digest = hashlib.sha256(data).digest()[: 2 * CHANNELS]
    return (np.frombuffer(digest, np.uint16) + np.float32(1)) / np.float32(65536)


def honest(files):
    """The outputs of files, as a model of ours has them."""
    known = [data[:4] == b"\x89PNG" for data in files]
    rows = [features_of(d) if k else np.zeros(CHANNELS) for d, k in zip(files, known)]  # noqa: B905
    reason = [0 if k else 2 if d else 1 for d, k in zip(files, known)]  # noqa: B905
    return {
        "pooled": np.array(rows, np.float32).reshape(-1, CHANNELS),
        "ok": np.array(known, bool),
        "reason": np.array(reason, np.int32),
    }


def put(name, change):
    """A lie that changes one output: a function of its array."""
    return lambda found, files: {**found, name: change(found[name])}


def without(*names):
    return lambda found, files: {k: v for k, v in found.items() if k not in names}


def at(place, value):
    """Changes one row of an array."""

    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


def rows(order):
    """Answers of good images in another order."""

    def lie(found, files):
        good = np.flatnonzero(found["ok"])
        moved = found["pooled"].copy()
        moved[good] = moved[good][order(len(good))]
        return {**found, "pooled": moved}

    return lie


# Of answers: functions of the true outputs and the files.
ANSWERS = {
    "no_outputs": lambda found, files: {},
    "no_features": without("pooled"),
    "no_ok": without("ok"),
    "no_reason": without("reason"),
    "a_nan": put("pooled", at((0, 1), np.nan)),
    "nan": put("pooled", lambda x: np.full_like(x, np.nan)),
    "infinite": put("pooled", at((0, 0), np.inf)),
    "below_all_numbers": put("pooled", at((-1, -1), -np.inf)),
    "texts": put("pooled", lambda x: x.astype("U9").astype(object)),
    "truth_values": put("pooled", lambda x: x > 0),
    "wider": put("pooled", lambda x: np.tile(x, (1, 2))),
    "narrower": put("pooled", lambda x: x[:, 1:]),
    "one_number": put("pooled", lambda x: x[:, 0]),
    "one_scalar": put("pooled", lambda x: x.sum()),
    "more_axes": put("pooled", lambda x: x[..., None]),
    "turned": put("pooled", lambda x: x.T),
    "a_row_less": put("pooled", lambda x: x[1:]),
    "a_row_more": put("pooled", lambda x: np.concatenate([x, x[:1]])),
    "no_rows": put("pooled", lambda x: x[:0]),
    "all_a_row_less": lambda found, files: {k: v[1:] for k, v in found.items()},
    "all_a_row_more": lambda found, files: honest([*files, files[0]]),
    "an_ok_less": put("ok", lambda x: x[1:]),
    "a_reason_more": put("reason", lambda x: np.append(x, 0).astype(np.int32)),
    "swapped": rows(lambda n: [*range(1, n), 0]),
    "reversed": rows(lambda n: slice(None, None, -1)),
    "two_swapped": rows(lambda n: [*range(n)[1::-1], *range(2, n)]),
    "the_last_two_swapped": rows(lambda n: [*range(n - 2), *range(n)[:-3:-1]]),
    "all_swapped": lambda found, files: honest(files[::-1]),
    "another_files": lambda found, files: honest([data + b"?" for data in files][::-1]),
    "all_the_same": put("pooled", lambda x: np.tile(np.float32(0.5), x.shape)),
    "zeros": put("pooled", np.zeros_like),
    "a_row_of_zeros": put("pooled", at(0, 0)),
    "ok_of_numbers": put("ok", lambda x: x.astype(np.float32)),
    "reasons_of_floats": put("reason", lambda x: x + np.float32(0.5)),
    "ok_against_reason": put("reason", at(slice(None), 4)),
    "reason_against_ok": put("ok", at(slice(None), False)),
    "reason_below_0": put("reason", at(0, -1)),
    "empty_it_says": lambda found, files: all_bad(found, 1),
    "unknown_it_says": lambda found, files: all_bad(found, 2),
    "all_is_well": lambda found, files: honest([b"\x89PNG" + d for d in files]),
}


def all_bad(found, reason):
    return {
        "pooled": np.zeros_like(found["pooled"]),
        "ok": np.zeros_like(found["ok"]),
        "reason": np.full_like(found["reason"], reason),
    }


# Of metadata: functions of (model, version, signatures as JSON has them).
METADATA = {
    "metadata_of_another": lambda m, v, s: ("another", v, s),
    "metadata_of_no_model": lambda m, v, s: ("", v, s),
    "metadata_of_no_version": lambda m, v, s: (m, None, s),
    "metadata_of_no_signature": lambda m, v, s: (m, v, {}),
    "metadata_of_another_input": lambda m, v, s: (m, v, inputs(s, "image")),
    "metadata_of_two_inputs": lambda m, v, s: (m, v, inputs(s, "image_bytes", "x")),
    "metadata_without_features": lambda m, v, s: (m, v, outputs(s, {})),
    "metadata_of_a_scalar": lambda m, v, s: (
        m,
        v,
        outputs(s, {"pooled": ("float32", ())}),
    ),
    "metadata_of_a_resource": lambda m, v, s: (
        m,
        v,
        outputs(s, {"pooled": ("resource", (-1,))}),
    ),
}


# No lies: a detector, and images without objects.
NO_OBJECTS = "honest detector without objects"
DETECTIONS = {
    "box": ("float32", (-1, 5, 4)),
    "score": ("float32", (-1, 5)),
    "valid": ("bool", (-1, 5)),
    "ok": ("bool", (-1,)),
    "reason": ("int32", (-1,)),
}


def no_objects(found, files):
    box, count = np.zeros((len(files), 5, 4), np.float32), len(files)
    rows = {"box": box, "score": box[..., 0], "valid": np.zeros((count, 5), bool)}
    return {**rows, "ok": found["ok"], "reason": found["reason"]}


def inputs(signatures, *names):
    return {k: (names, made) for k, (_, made) in signatures.items()}


def outputs(signatures, made):
    return {k: (names, made) for k, (names, _) in signatures.items()}


# Of Predict's ModelSpec: which is in gRPC only.
SPECS = {
    "answer_of_another_model": {"name": "another"},
    "answer_of_another_version": {"version": {"value": 8}},
    "answer_of_another_signature": {"signature_name": "groups"},
}
CODES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


def tensor(change):
    """A lie about how `pooled` lies in its message."""

    def lie(response):
        change(response.outputs["pooled"])

    return lie


def values(count):
    def change(one):
        one.tensor_content = b""
        one.float_val.extend([0.5] * count)

    return tensor(change)


TENSORS = {
    "shape_without_numbers": tensor(lambda one: one.ClearField("tensor_content")),
    "few_values": values(5),
    "many_values": values(1000),
    "short_content": tensor(lambda one: cut(one, slice(0, -4))),
    "odd_content": tensor(lambda one: cut(one, slice(0, -1))),
    "long_content": tensor(lambda one: cut(one, slice(0, None), b"more")),
    "below_0": tensor(lambda one: size(one, -4)),
    "vast": tensor(lambda one: size(one, 2**40)),
    "no_rank": tensor(lambda one: setattr(one.tensor_shape, "unknown_rank", True)),
    "no_dtype": tensor(lambda one: setattr(one, "dtype", 0)),
    "variant": tensor(lambda one: setattr(one, "dtype", 21)),
    "doubles": tensor(lambda one: setattr(one, "dtype", 2)),
    "other_dtype": tensor(lambda one: setattr(one, "dtype", 3)),
}


def cut(one, kept, more=b""):
    one.tensor_content = one.tensor_content[kept] + more


def size(one, value):
    one.tensor_shape.dim[0].size = value


# Of gRPC's bytes.
BYTES = {
    "no_bytes": lambda body: b"",
    "garbage": lambda body: b"\xff\xfe" * 20,
    "html": lambda body: b"<html>503</html>",
    "half": lambda body: body[: len(body) // 2],
    "too_large": lambda body: body + b"\x7a" + bytes([0x80, 0x80, 0x80, 2]) * 2**20,
}
STATUSES = (201, 204, 301, 302, 400, 401, 403, 404, 409, 413, 418, 429, 500, 503, 504)
JSONS = {
    "no_json": "<html>503</html>",
    "nothing": "",
    "null": "null",
    "a_list": "[1, 2]",
    "a_number": "1",
    "an_error": '{"error": "no"}',
    "null_outputs": '{"outputs": null}',
    "listed_outputs": '{"outputs": [1, 2]}',
    "predictions": '{"predictions": [{"pooled": [1, 2, 3, 4]}]}',
    "null_features": '{"outputs": {"pooled": null, "ok": [true], "reason": [0]}}',
    "ragged": '{"outputs": {"pooled": [[1], [1, 2]], "ok": [true], "reason": [0]}}',
    "objects": '{"outputs": {"pooled": [{}, {}], "ok": [true], "reason": [0]}}',
    "deep": "[" * 100_000,
    "long_number": '{"outputs": {"pooled": [[1' + "0" * 5000 + ".0, 1, 1, 1]]}}",
    "no_utf8": "\udcff",
}
# Of HTTP's bytes: generators of pieces, after a request has been read.
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def sized(body, claimed=None):
    size = len(body) if claimed is None else claimed
    return HEAD + b"Content-Length: %d\r\n\r\n" % size + body


def forever(first, piece, pause=0.0):
    def send(body):
        yield first
        end = time.monotonic() + STALL
        while time.monotonic() < end:
            time.sleep(pause)
            yield piece

    return send


def once(make):
    def send(body):
        yield make(body)

    return send


HTTP = {
    "closes": once(lambda body: b""),
    "no_http": once(lambda body: b"\x16\x03\x01 hello\r\n\r\n"),
    "ssh": once(lambda body: b"SSH-2.0-OpenSSH_9.6\r\n"),
    "half_a_head": once(lambda body: HEAD[:20]),
    "head_only": once(lambda body: sized(b"", len(body))),
    "half_a_body": once(lambda body: sized(body[: len(body) // 2], len(body))),
    "half_unsized": once(lambda body: HEAD + b"\r\n" + body[: len(body) // 2]),
    "shorter_than_said": once(lambda body: sized(body, len(body) + 5)),
    "cut_by_its_length": once(lambda body: sized(body, len(body) - 5)),
    "broken_chunk": once(
        lambda body: HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body
    ),
    "half_a_chunk": once(
        lambda body: HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
    ),
    "compressed": once(
        lambda body: (
            HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n\x1f\x8bgarbage"
        )
    ),
    "stalls": forever(b"", b"", 0.1),
    "stalls_after_the_head": forever(HEAD + b"Content-Length: 900\r\n\r\n", b"", 0.1),
    "drips_its_head": forever(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.1),
    "drips_its_body": forever(HEAD + b"Content-Length: 9000\r\n\r\n", b" ", 0.1),
    "endless_head": forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50),
    "endless_line": forever(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 9999),
    "endless_body": forever(HEAD + b"\r\n", b" " * 2**16),
    "endless_chunks": forever(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + b" " * 2**16 + b"\r\n",
    ),
    "endless_chunk_head": forever(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 9999
    ),
    "goes_on_for_ever": forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "vast": once(lambda body: sized(body, 2**60)),
}
_GRPC = [*SPECS, *TENSORS, *BYTES, *CODES, "stalls"]
_REST = [*(str(s) for s in STATUSES), *JSONS, *HTTP, "ragged_rows", "numbers_as_texts"]
BOTH = [*ANSWERS, *METADATA]
# Whether it is told of metadata, too: then nothing at all is answered.
LIES = {
    "grpc": [*BOTH, *_GRPC, *(f"metadata.{n}" for n in ("stalls", *BYTES, *CODES))],
    "rest": [*BOTH, *_REST, *(f"metadata.{n}" for n in (*HTTP, *JSONS, "404", "500"))],
}
# What a client gets over: the first answers fail, the next one does not.
ONCE = {
    "grpc": ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "half", "stalls"),
    "rest": ("500", "503", "429", "504", "closes", "half_a_body", "half_unsized"),
}
