"""The light client: what it imports, its messages and tensors, TLS, asyncio, health."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from export.extract import LocalModel
from slotcon_client import (
    AsyncFeatureClient,
    ExtractionError,
    FeatureClient,
    RequestError,
    Unavailable,
    WrongAnswer,
    asking,
    sending,
)
from slotcon_client.answers import are_swapped
from slotcon_client.codecs import Message
from slotcon_client.extraction import Images
from slotcon_client.protocol import message, method
from slotcon_client.retrying import Pause, Retrying
from slotcon_client.tensors import KINDS, read_json, read_tensor, write_tensor
from slotcon_client.wire_rest import _Connection
from slotcon_client.wires import Failed
from tests.support.command import ROOT, free_ports
from tests.support.lies import NO_OBJECTS, VERSION, features_of, honest
from tests.support.lying_server import LyingServer
from tests.support.picture_case import encoded, pictures

PNGS = [encoded(picture, "PNG") for picture in pictures(3)]
QUICK = {"deadline": 5.0, "retry_seconds": 0.5}
# Forbids what the client must do without, and tells what importing it takes.
IMPORT = """
import sys, time
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is forbidden")
sys.meta_path.insert(0, Forbidden())
start = time.process_time()
from slotcon_client import AsyncFeatureClient, FeatureClient
import slotcon_client.codec_grpc, slotcon_client.codec_rest, slotcon_client.wire_rest
import slotcon_client.extraction, grpc
seconds = time.process_time() - start
with open("/proc/self/status") as status:
    resident = next(int(s.split()[1]) for s in status if s.startswith("VmRSS"))
FeatureClient("localhost:8500").close()
FeatureClient("localhost:8501", transport="rest").close()
print(seconds, resident / 1024)
"""
FORBIDDEN = ("tensorflow", "keras", "absl", "slotcon_tf", "PIL", "pyarrow", "scipy")


def test_it_is_light():
    """No TensorFlow, 0.5 s, 80 MiB; of the processor, for others work here as well."""
    code = f"FORBIDDEN = {FORBIDDEN}{IMPORT}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds, resident = map(float, done.stdout.split())
    assert seconds < 0.5 and resident < 80


def test_messages_are_tf_servings_on_the_wire():
    """Each field filled, packed by one and read by the other."""
    for name, theirs in [
        ("PredictRequest", predict_pb2.PredictRequest),
        ("PredictResponse", predict_pb2.PredictResponse),
        ("GetModelMetadataRequest", get_model_metadata_pb2.GetModelMetadataRequest),
        ("GetModelMetadataResponse", get_model_metadata_pb2.GetModelMetadataResponse),
        ("SignatureDefMap", get_model_metadata_pb2.SignatureDefMap),
        ("GetModelStatusRequest", get_model_status_pb2.GetModelStatusRequest),
        ("GetModelStatusResponse", get_model_status_pb2.GetModelStatusResponse),
    ]:
        ours = filled(message(name)())
        read = theirs.FromString(ours.SerializeToString())
        assert not list(unknown(read)), name
        back = message(name).FromString(read.SerializeToString())
        assert back == ours, name
    health = message("HealthCheckResponse").FromString(b"\x08\x01")
    assert (
        health.status == 1 and method("HealthCheck") == "/grpc.health.v1.Health/Check"
    )


def filled(one, depth=0):
    """Every field of a message, and of those in it, with some value."""
    for field in one.DESCRIPTOR.fields:
        if field.name == "version_label" and one.DESCRIPTOR.name == "ModelSpec":
            continue  # one of two
        several = getattr(field, "is_repeated", None)
        several = field.label == field.LABEL_REPEATED if several is None else several
        inner = field.message_type
        if inner and inner.GetOptions().map_entry:
            if inner.fields_by_name["value"].message_type:
                filled(getattr(one, field.name)["key"], depth + 1)
        elif inner:
            part = getattr(one, field.name)
            filled(part.add() if several else part, depth + 1)
        else:
            kinds = {field.CPPTYPE_STRING: "text", field.CPPTYPE_BOOL: True}
            value = kinds.get(field.cpp_type, 10)
            if field.type == field.TYPE_BYTES:
                value = b"bytes"
            if several:
                getattr(one, field.name).append(value)
            else:
                setattr(one, field.name, value)
    return one


def unknown(one):
    from google.protobuf import unknown_fields

    yield from unknown_fields.UnknownFieldSet(one)
    for field, value in one.ListFields():
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for part in value if hasattr(value, "__len__") else [value]:
                yield from unknown(part)


NAMES = [kind.name for kind in KINDS.values() if not kind.name.startswith("q")]


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_every_type(name):
    """As bytes and value by value; and what ours writes, TensorFlow reads."""
    dtype = tf.as_dtype(name)
    numbers = np.array([[0, 1, 2], [3, 100, 7]]).astype(dtype.as_numpy_dtype)
    if name == "string":
        numbers = np.array([[b"", b"a\0"], [b"\xff", b"text"]], object)
    made = tf.make_tensor_proto(numbers, dtype)
    truth = numbers.astype(np.float32) if name == "bfloat16" else numbers
    for form in (made, value_by_value(made, numbers, dtype)):
        ours = message("Tensor").FromString(form.SerializeToString())
        found = read_tensor(ours, 2**10)
        np.testing.assert_array_equal(found, truth)
        assert found.dtype == truth.dtype and found.shape == truth.shape
        if name != "bfloat16":
            written = write_tensor(found).SerializeToString()
            proto = tf.make_tensor_proto(0)
            proto.ParseFromString(written)
            np.testing.assert_array_equal(tf.make_ndarray(proto), truth)
    made.tensor_content = numbers.tobytes()[:-1]
    if name != "string":
        with pytest.raises(ValueError, match="bytes for shape"):
            read_tensor(message("Tensor").FromString(made.SerializeToString()), 2**10)
    with pytest.raises(ValueError, match=r"bytes|shape \[2"):
        read_tensor(ours, 3)


def value_by_value(proto, numbers, dtype):
    """The same, in the list of its type."""
    listed = type(proto)()
    listed.CopyFrom(proto)
    listed.ClearField("tensor_content")
    field = KINDS[dtype.as_datatype_enum].values
    values = numbers.reshape(-1)
    if field == "half_val":
        values = values.view(np.uint16)
    if values.dtype.kind == "c":
        values = values.view(values.real.dtype)
    listed.ClearField(field)
    getattr(listed, field).extend(values.tolist())
    return listed


@pytest.mark.parametrize(
    ("values", "name", "said"),
    [
        ([["1.5"]], "float32", "texts"),
        ([[1, 2], [3]], "float32", "inhomogeneous"),
        ([1.5], "int32", "float64"),
        ([300], "uint8", "does not hold"),
        ([None], "float32", "mixed"),
        ([True], "float32", "truth"),
        ([1], "bool", "no bool"),
        ([2**70], "int64", "mixed"),
        ([["a"], "b"], "string", "other lengths"),
        ([1], "string", "no texts"),
        ({"a": 1}, "float32", "mixed"),
        ([{"b64": "?"}], "string", "base64|Only|padding"),
    ],
)
def test_json_of_other_types_is_refused(values, name, said):
    with pytest.raises(ValueError, match=said):
        read_json(values, name, (None,))


@pytest.fixture(scope="module")
def server():
    server = LyingServer()
    yield server
    server.close()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_the_version_is_asked_once_and_answers_are_the_models(transport, server):
    address = getattr(server, transport)
    model = f"honest {transport} ü/1"  # names are quoted
    with FeatureClient(address, transport=transport, model_name=model) as client:
        files = [*PNGS, b"", b"<html>"]
        found = client.predict(files)
        for name, values in honest(files).items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype
        assert client.served.version == VERSION
        assert client.served.signature["pooled"] == ("float32", (None, 4))
        assert client.settings()["version"] == VERSION
        assert client.status() == {VERSION: "AVAILABLE"} and client.is_well()
        assert len(client.predict([])["pooled"]) == 0
        # The first batch was asked for once more, and one picture of it alone.
        assert server.seen[transport, model] == 4
    with pytest.raises(ExtractionError, match="closed"):
        client.predict(files)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_asyncio(transport, server):
    """Many at once; what it raises is the same."""
    address = getattr(server, transport)

    async def ask(files):
        async with AsyncFeatureClient(
            address, transport=transport, model_name="async", **QUICK
        ) as client:
            assert await client.is_well()
            found = await asyncio.gather(*(client.predict([f]) for f in files))
            return (await client.served()).version, [f["pooled"][0] for f in found]

    version, rows = asyncio.run(ask(PNGS * 5))
    assert version == VERSION
    np.testing.assert_array_equal(rows, [features_of(data) for data in PNGS * 5])

    async def fail(model):
        client = AsyncFeatureClient(
            address, transport=transport, model_name=model, **QUICK
        )
        async with client:
            await client.predict(PNGS[:1])

    for model, error in [("wider", WrongAnswer), ("nan", RequestError)]:
        with pytest.raises(error):
            asyncio.run(fail(model))
    away = f"127.0.0.1:{free_ports(1)[0]}"

    async def nobody():
        async with AsyncFeatureClient(away, transport=transport, **QUICK) as client:
            assert not await client.is_well()
            await client.check()

    with pytest.raises(Unavailable, match="must answer"):
        asyncio.run(nobody())


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_close_ends_what_waits(transport, server):
    """A request that stalls, and the pause before another attempt."""
    for model in ("stalls", "UNAVAILABLE" if transport == "grpc" else "503"):
        client = FeatureClient(
            getattr(server, transport), transport=transport, model_name=model
        )
        ended = []

        def ask(client=client, ended=ended):
            with pytest.raises(ExtractionError):
                client.predict(PNGS)
            ended.append(time.monotonic())

        client.check()
        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        client.close()
        thread.join(10)
        assert ended and ended[0] - began < 5


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_close_ends_what_is_awaited(transport, server):
    """A request that stalls, a pause, and whoever asks later; no task is cancelled."""
    away = "UNAVAILABLE" if transport == "grpc" else "503"
    options = {"transport": transport, "deadline": 15.0}

    async def ask(model, used=True):
        client = AsyncFeatureClient(
            getattr(server, transport), model_name=model, **options
        )
        if used:
            await client.check()
            waiting = asyncio.create_task(client.predict(PNGS))
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await client.close()
            with pytest.raises(ExtractionError, match="closed|CANCELLED"):
                await asyncio.wait_for(asyncio.shield(waiting), 5)
            assert not waiting.cancelled() and time.monotonic() - began < 2
        await client.close()
        with pytest.raises(ExtractionError, match="closed"):
            await client.predict(PNGS)

    for model in ("stalls", away):
        asyncio.run(ask(model))
    asyncio.run(ask("honest", used=False))

    async def cancel():
        address = getattr(server, transport)
        async with AsyncFeatureClient(
            address, model_name="stalls", **options
        ) as client:
            await client.check()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.predict(PNGS), 0.3)

    asyncio.run(cancel())


def test_the_loop_neither_converts_nor_checks(server, monkeypatch):
    threads = {}

    def noting(module, name):
        call = getattr(module, name)

        def noted(*args):
            threads.setdefault(name, set()).add(threading.current_thread())
            return call(*args)

        monkeypatch.setattr(module, name, noted)

    noting(asking, "check_answer")
    noting(sending, "served_form")

    async def ask():
        async with AsyncFeatureClient(server.grpc, model_name="loop") as client:
            await client.predict(PNGS)

    asyncio.run(ask())
    assert len(threads) == 2
    assert threading.main_thread() not in set.union(*threads.values())


class Shaken(Retrying):
    """As if another thread's request was answered whenever this one looks away."""

    @property
    def _failing_since(self):
        return None

    @_failing_since.setter
    def _failing_since(self, value):
        pass


def test_refusals_are_answers_and_threads_do_not_disturb_each_other():
    """Seconds that a server is away are counted while it does not answer at all."""
    options = {"deadline": 1.0, "retry_seconds": 0.2}

    def ask(retrying, code):
        steps = retrying.answered(Message("/a"), len, "a")
        next(steps)
        return steps.throw(Failed(code, "no"))

    retrying = Retrying("server", **options)
    for _ in range(3):
        with pytest.raises(RequestError):
            ask(retrying, "INVALID_ARGUMENT")
        time.sleep(0.15)
    assert isinstance(ask(retrying, "UNAVAILABLE"), Pause)
    time.sleep(0.3)
    with pytest.raises(Unavailable):
        ask(retrying, "UNAVAILABLE")
    assert isinstance(ask(Shaken("server", **options), "UNAVAILABLE"), Pause)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_server_that_stalls_at_first_is_waited_for(transport, server):
    """Longer than three deadlines: there is nothing to halve in metadata."""
    options = {"deadline": 0.2, "retry_seconds": 1.5, "transport": transport}
    began = time.monotonic()
    with (
        FeatureClient(
            getattr(server, transport), model_name="metadata.stalls", **options
        ) as client,
        pytest.raises(Unavailable, match="DEADLINE_EXCEEDED.*for 1.5 s"),
    ):
        client.check()
    assert 1.5 < time.monotonic() - began < 10


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """PEM files: a server's certificate and a client's, each its own authority."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make certificates")
    folder = tmp_path_factory.mktemp("pem")
    for name in ("server", "client"):
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
        words += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
        words += ["-addext", "subjectAltName=DNS:localhost"]
        words += ["-out", folder / f"{name}.pem", "-keyout", folder / f"{name}.key"]
        subprocess.run(words, check=True, capture_output=True)
    words = ["openssl", "pkey", "-aes256", "-passout", "pass:word"]
    words += ["-in", folder / "client.key", "-out", folder / "locked.key"]
    subprocess.run(words, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def secure(files):
    """A server that asks for the client's certificate, and for a token."""
    read = {path.name: path.read_bytes() for path in files.iterdir()}
    pair = (read["server.key"], read["server.pem"])
    credentials = grpc.ssl_server_credentials([pair], read["client.pem"], True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    context.load_verify_locations(files / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = LyingServer(credentials, context, token="secret")
    yield server
    server.close()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_tls_a_certificate_and_a_token(transport, secure, files):
    whole = {
        "tls_ca": files / "server.pem",
        "tls_certificate": files / "client.pem",
        "tls_key": files / "client.key",
        "token": "secret",
    }
    address = getattr(secure, transport)

    def ask(**options):
        options = {**QUICK, "transport": transport, **options}
        with FeatureClient(address, **options) as client:
            return client.predict(PNGS)["pooled"]

    np.testing.assert_array_equal(ask(**whole), honest(PNGS)["pooled"])
    for wrong, text in [
        ({"tls_ca": files / "client.pem"}, "CERTIFICATE_VERIFY_FAILED|certificate"),
        ({"tls_ca": None, "tls": True}, "CERTIFICATE_VERIFY_FAILED|certificate"),
        ({"token": "other"}, "UNAUTHENTICATED.*no token"),
        ({"token": None}, "UNAUTHENTICATED.*no token"),
        ({"tls_certificate": None, "tls_key": None}, "Received: "),
        ({"tls_key": None}, "must be given both"),
        ({"tls_key": files / "server.key"}, "PEM files that fit"),
        ({"tls_ca": files / "client.key"}, "PEM files that fit"),
        ({"tls_ca": files / "none.pem"}, "`tls_ca`.*none.pem, No such file"),
        ({"tls_ca": files}, "`tls_ca`.*no file"),
        ({"tls_key": files / "none.key"}, "`tls_key`.*none.key, No such file"),
        ({"tls_key": files / "locked.key"}, "pass phrase"),
        ({"token": "two\nlines"}, "printable ASCII. Received: other"),
        ({"token": ""}, "printable ASCII. Received: an empty one"),
    ]:
        with pytest.raises(ExtractionError, match=text) as caught:
            ask(**{**whole, **wrong})
        assert "secret" not in str(caught.value)
    with pytest.raises(ExtractionError, match="Received: "):
        ask(token="secret")  # without TLS
    assert "secret" not in repr(FeatureClient(address, **whole)._security)


def test_over_tls_a_request_that_is_too_long_is_refused_at_once(secure, files):
    """And 443 is where TLS is spoken, if no port is said."""
    names = {"tls_ca": "server.pem", "tls_certificate": "client.pem"}
    options = {name: files / file for name, file in names.items()}
    options |= {"tls_key": files / "client.key", "token": "secret", "transport": "rest"}
    with FeatureClient(secure.rest, model_name="honest", **options) as client:
        with pytest.raises(RequestError, match="RESOURCE_EXHAUSTED: 413 too long"):
            client.predict([PNGS[0] + bytes(2**24)])
        context = client._security.for_rest()
    assert _Connection("server", context).port == 443
    assert _Connection("server", None).port == 80
    assert _Connection("server:9", context).port == 9


def test_what_cannot_be_used_is_said():
    with pytest.raises(ExtractionError, match="`transport` must be grpc or rest"):
        FeatureClient("localhost:1", transport="http")
    with pytest.raises(ExtractionError, match="`server` must be host:port"):
        FeatureClient("localhost:here", transport="rest")


def test_a_version_that_is_gone_ends_the_job_and_may_be_asked_anew(server):
    """NOT_FOUND for the number; `renew` forgets it."""
    with FeatureClient(server.grpc, model_name="NOT_FOUND", **QUICK) as client:
        with pytest.raises(ExtractionError, match=f"version {VERSION} of NOT_FOUND"):
            client.predict(PNGS)
        client.renew()
        assert client.served.version == VERSION
    for version, error in [(VERSION, None), (VERSION + 1, WrongAnswer)]:
        options = {"model_name": "honest", "version": version}
        with FeatureClient(server.grpc, **options) as client:
            if error is None:
                client.check()
            else:
                with pytest.raises(error, match="asked for. Received: version 7"):
                    client.check()


def test_an_idle_connection_that_was_closed_is_no_failure(server, caplog):
    wire = FeatureClient(server.rest, transport="rest", model_name="honest", **QUICK)
    with wire as client:
        client.predict(PNGS)
        for kept in client._wire._idle:
            kept._plain.shutdown(socket.SHUT_RDWR)
        client.predict(PNGS)
    assert not caplog.records


def test_a_request_that_is_too_long_is_refused_at_once(server):
    """The server says so while the client still sends."""
    content = [PNGS[0] + bytes(2**24)]
    client = FeatureClient(server.rest, transport="rest", model_name="honest")
    said = "RESOURCE_EXHAUSTED: 413 too long"
    with client, pytest.raises(RequestError, match=said):
        client.predict(content)


@pytest.mark.parametrize("lie", ["two_swapped", "the_last_two_swapped"])
@pytest.mark.parametrize("count", [2, 3, 8, 24])
def test_two_swapped_rows_are_found_in_the_first_batch(lie, count, server):
    files = [PNGS[0] + bytes([number]) for number in range(count)]
    for _ in range(5):
        with (
            FeatureClient(server.grpc, model_name=lie, **QUICK) as client,
            pytest.raises(WrongAnswer, match="in its own row"),
        ):
            client.predict(files)


def test_a_detector_may_find_nothing(server):
    """In all images, and in noise."""
    with FeatureClient(server.grpc, model_name=NO_OBJECTS, outputs=()) as client:
        found = client.predict(PNGS)
    assert found["ok"].all() and not found["valid"].any()


class Model(tf.Module):
    """As features, the lengths of files from 100 bytes on, and zeros of those below."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes):
        sizes = tf.strings.length(image_bytes)
        pooled = tf.cast(tf.where(sizes < 100, 0, sizes), tf.float32)[:, None]
        reason = tf.where(sizes > 0, 0, 1)
        return {"pooled": pooled, "ok": sizes > 0, "reason": reason}


def test_a_model_in_this_process_is_believed_as_a_server_is(tmp_path):
    """It has a client's methods, and none of its zeros are features."""
    path, module = tmp_path / "sizes" / "7", Model()
    tf.saved_model.save(module, str(path), {"image_bytes": module.serve})
    small = PNGS[0][:90]
    with LocalModel(path.parent) as model:
        model.check()
        assert model.served.model == "sizes" and model.served.version == 7
        assert model.served.signature["pooled"] == ("float32", (None, 1))
        assert model.settings()["version"] == 7
        found = model.predict([PNGS[0], b""])
        assert found["pooled"].tolist() == [[len(PNGS[0])], [0]]
        assert found["ok"].tolist() == [True, False]
        with pytest.raises(RequestError, match="a row of zeros"):
            model.predict([small])
        for number, data in enumerate([PNGS[0], small]):
            (tmp_path / f"{number}.png").write_bytes(data)
        images = Images(str(tmp_path), tuple(map(str, sorted(tmp_path.glob("*.png")))))
        failed = model.extract(images, tmp_path / "a.npz", convert=bytes)
    assert "a row of zeros" in failed["1.png"]


def test_near_rows_are_no_swap():
    """Rounding that differs with the batch's size, of images that are nearly alike."""
    rng = np.random.default_rng(0)
    rows = 1 + 0.001 * rng.standard_normal((4, 64)).astype(np.float32)
    for noise in (0, 1e-6, 5e-4):
        alone = {"pooled": rows[2:3] + noise * rng.standard_normal((1, 64))}
        assert not are_swapped({"pooled": rows}, alone, 2)
    assert are_swapped({"pooled": rows[[0, 2, 1, 3]]}, {"pooled": rows[2:3]}, 2)
