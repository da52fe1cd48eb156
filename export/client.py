"""Features of a folder of images from TF Serving.

    python -m export.client --server=localhost:8500 --images=photos --output=out.npz

Requests run side by side; a server that is away is asked again for --retry_minutes. An
interrupted extraction goes on when the same command is given again. Images that failed
are named; their rows are zeros. `slotcon_client.FeatureClient` is the same for Python,
without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os

from slotcon_client.client import FeatureClient
from slotcon_client.security import secret_in
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import SettingError, setting

from .extraction_settings import ExtractionSettings, listed_images, run

__all__ = ["ClientConfig", "FeatureClient", "client", "main"]
TOKEN = "SLOTCON_TOKEN"  # environment variable


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientConfig(ExtractionSettings):
    """What is extracted, and by which server.

    Example:
        >>> ClientConfig(images="photos", output="features.npz").server
        'localhost:8500'
    """

    server: str = setting("localhost:8500", "host:port.")
    transport: str = setting("grpc", "Protocol.", choices=("grpc", "rest"))
    model_name: str = setting("slotcon", "As served.")
    version: int | None = setting(None, "Of the model; the newest if unset.", low=0)
    version_label: str = setting("", "Label of a version, such as stable.")
    deadline_s: float = setting(30.0, "Seconds for a whole answer.", low=0.0)
    retry_minutes: float = setting(5.0, "Wait for a server so long.", low=0.0)
    max_message_mb: int = setting(64, "Largest message.", low=1)
    tls: bool = setting(False, "Speak TLS, by the system's certificates.")
    tls_ca: str | None = setting(
        None, "PEM file of the certificates that the server's must be of."
    )
    tls_certificate: str | None = setting(None, "PEM file of this client's.")
    tls_key: str | None = setting(None, "PEM file of its key.")
    token_file: str | None = setting(
        None, f"File of a token that every request bears; else ${TOKEN}, if it is set."
    )

    def token(self) -> str | None:
        """What every request bears.

        Raises:
            ExtractionError: If the file cannot be read.
        """
        if self.token_file is None:
            return os.environ.get(TOKEN) or None  # compose's ${...:-} sets it empty
        return secret_in("token_file", self.token_file).decode("latin-1").strip()


def client(config: ClientConfig) -> None:
    """Asks a server for the features of images, and prints what came of it.

    Args:
        config: What is extracted, by which server, and where it goes.

    Raises:
        ValueError, OSError: If the server has no such model, signature or output, does
            not answer, or answers wrongly, or there are no images.
        SettingError: If only one of a certificate and its key is given.

    Example:
        >>> config = ClientConfig(images="none", output="a.npz")
        >>> client(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: Dataset 'folder' needs the folder none. ...
    """
    if (config.tls_certificate is None) != (config.tls_key is None):
        raise SettingError(
            "`tls_certificate` and `tls_key` must be given both. Received: "
            f"tls_certificate={config.tls_certificate}, tls_key={config.tls_key}."
        )
    images = listed_images(config.images)
    asked = FeatureClient(
        config.server,
        transport=config.transport,
        model_name=config.model_name,
        version=config.version,
        version_label=config.version_label,
        signature=config.signature,
        outputs=config.fetched,
        deadline=config.deadline_s,
        retry_seconds=60 * config.retry_minutes,
        max_message_bytes=config.max_message_mb * 2**20,
        tls=config.tls,
        tls_ca=config.tls_ca,
        tls_certificate=config.tls_certificate,
        tls_key=config.tls_key,
        token=config.token(),
    )
    with asked:
        asked.check()
        run(asked.extract, images, config)


main = Command("client", ClientConfig, client, __doc__)

if __name__ == "__main__":
    main()
