"""A local model server for development and tests.

    python -m export.server --export_dir=served/slotcon

Answers TF Serving's gRPC calls (Predict, GetModelMetadata, GetModelStatus) on the
SavedModels of a folder, Predict over REST as well (--rest_port=8501), and loads a new
version while it serves. Production runs TF Serving itself: it batches requests, and is
written in C++.

Differs from TF Serving: it listens before there is a version, and says NOT_FOUND;
answers hold numbers as bytes (`tensor_content`), which tf.make_ndarray reads as well;
labels are set on the command line only; a damaged version is not tried again before its
files change, and the newest sound one is served, also after a start.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Sequence

from absl import logging

from slotcon_tf.extras import needed
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.exporting import EXPORT_DIR
from slotcon_tf.runs.settings import Config, SettingError, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig(Config):
    """What is served, and where.

    Example:
        >>> ServerConfig(export_dir="served/slotcon").port
        8500
    """

    export_dir: str = setting(None, EXPORT_DIR, aliases=("model_dir",))
    model_name: str = setting("slotcon", "As served.")
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8500, "Port; 0: a free one.", low=0, high=65535)
    rest_port: int = setting(0, "Port of REST; 0: none.", low=0, high=65535)
    threads: int = setting(8, "Requests at once.", low=1)
    max_message_mb: int = setting(64, "Largest message.", low=1)
    poll_seconds: float = setting(1.0, "Between looks at the folder.", low=0.01)
    keep_versions: int = setting(1, "Newest versions to serve.", low=1)
    version_labels: tuple[str, ...] = setting((), "Such as stable:1,canary:2.")


_GRACE = 30.0  # seconds for requests under way when the server stops


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        config: What is served, and where.

    Raises:
        MissingExtra: Without the `serving` extra.
        SettingError: If labels cannot be read.
        OSError: If there is no folder, or the port is taken.

    Example:
        >>> serve(ServerConfig(export_dir="none"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: `export_dir` must be a folder, of versions that ...
    """
    labels = _labels(config.version_labels)
    with needed("serving"):
        from .server_rest import start_rest
        from .server_services import start
        from .server_versions import Versions
    if not os.path.isdir(config.export_dir):
        raise FileNotFoundError(
            "`export_dir` must be a folder, of versions that slotcon-export wrote. "
            f"Received: export_dir={config.export_dir}, which is none. Check the path."
        )
    stopped = threading.Event()
    # Before the line that says it serves: who reads that may end it at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    versions = Versions(
        config.export_dir, config.model_name, labels, config.keep_versions
    )
    versions.poll()
    server, port = start(
        versions,
        host=config.host,
        port=config.port,
        threads=config.threads,
        max_message_mb=config.max_message_mb,
    )
    if config.rest_port:
        start_rest(
            versions,
            host=config.host,
            port=config.rest_port,
            max_message_mb=config.max_message_mb,
        )
    if not versions.numbers():
        logging.warning("No version in %s yet; it is looked for.", config.export_dir)
    print(
        f"Serving {config.model_name} version(s) {versions.numbers()} on "
        f"{config.host}:{port}",
        flush=True,
    )
    while not stopped.wait(config.poll_seconds):
        versions.poll()
    server.stop(_GRACE).wait()


def _labels(words: Sequence[str]) -> dict[str, int]:
    pairs = [word.partition(":") for word in words]
    if not all(name and number.isdecimal() for name, _, number in pairs):
        raise SettingError(
            "`version_labels` must be such as stable:1,canary:2. "
            f"Received: version_labels={','.join(words)}."
        )
    return {name: int(number) for name, _, number in pairs}


main = Command("server", ServerConfig, serve, __doc__)

if __name__ == "__main__":
    main()
