"""The local server's parts in this process, and certificates."""

import concurrent.futures
import contextlib
import shutil
import subprocess
import types

import pytest

from export.server_answers import Answers
from export.server_metrics import Metrics
from export.server_rest import RestServer
from export.server_services import GrpcServer
from export.server_tensors import Limits


@contextlib.contextmanager
def both(versions, limits=None, certificates=None, threads=2, **options):
    """Both servers of some versions: ports `grpc` and `rest`, and `answers`."""
    answers, metrics = Answers(versions, limits or Limits()), Metrics(versions)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    rpc = GrpcServer(answers, metrics, pool, "127.0.0.1:0", certificates)
    options = {"certificates": certificates, "grace_seconds": 1.0, **options}
    rest = RestServer(answers, metrics, pool, "127.0.0.1", 0, **options)
    found = {"grpc": rpc, "answers": answers, "metrics": metrics}
    try:
        yield types.SimpleNamespace(**found, port=rpc.port, rest_port=rest.server_port)
    finally:
        rest.stop()
        rpc.stop(0)


def write_certificates(folder):
    """Writes ca.pem, and NAME.pem with NAME.key of a server and a client of it."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj=/CN=ca")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        asked = ("-keyout", f"{name}.key", "-out", f"{name}.csr", f"-subj=/CN={name}")
        openssl("req", *new, *asked)
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem"),
            *("-extfile", "names"),
        )
