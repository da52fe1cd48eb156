"""Who the server is, and who asks: TLS and a token."""

from __future__ import annotations

import os
import pathlib
import ssl
from dataclasses import dataclass, field
from typing import Any

from slotcon_client.errors import ExtractionError


@dataclass(frozen=True)
class Security:
    """What a connection is secured with; nothing by default.

    Attributes:
        tls: Whether TLS is spoken; also where one of the files is given.
        ca: PEM file of the certificates that the server's must be of; the system's if
            None. A server's own certificate is one, too.
        certificate, key: PEM files of this client's.
        token: Sent as `authorization: Bearer TOKEN`.

    Raises:
        ExtractionError: If a certificate comes without its key, or the token cannot
            stand in a header; by `for_grpc` and `for_rest`, if a file cannot be read,
            is no PEM file, or a key that asks for a pass phrase.

    Example:
        >>> Security(token="secret").headers
        {'authorization': 'Bearer secret'}
    """

    tls: bool = False
    ca: str | os.PathLike | None = None
    certificate: str | os.PathLike | None = None
    key: str | os.PathLike | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ExtractionError(
                "`tls_certificate` and `tls_key` must be given both. Received: "
                f"tls_certificate={self.certificate}, tls_key={self.key}."
            )
        token = self.token
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise ExtractionError(
                "`token` must be printable ASCII. Received: "
                f"{'other characters' if token else 'an empty one'}."
            )

    @property
    def on(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls or self.ca is not None or self.certificate is not None

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}

    def for_grpc(self) -> Any:
        """grpc.ChannelCredentials; None without TLS."""
        if not self.on:
            return None
        import grpc

        self._context()  # grpc finds fault with files only as it connects
        found = self._files()
        return grpc.ssl_channel_credentials(
            *(found.get(name) for name in ("tls_ca", "tls_key", "tls_certificate"))
        )

    def for_rest(self) -> ssl.SSLContext | None:
        """None without TLS."""
        return self._context() if self.on else None

    def _files(self) -> dict[str, bytes]:
        """What is in them, by the names of the settings."""
        paths = {
            "tls_ca": self.ca,
            "tls_certificate": self.certificate,
            "tls_key": self.key,
        }
        found = {}
        for name, path in paths.items():
            if path is not None:
                found[name] = secret_in(name, path)
        return found

    def _context(self) -> ssl.SSLContext:
        self._files()  # ssl does not say which of them it cannot read
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, _no_pass_phrase)
        except (ssl.SSLError, ValueError) as error:
            raise ExtractionError(
                "`tls_ca`, `tls_certificate` and `tls_key` must be PEM files that fit. "
                f"Received: {getattr(error, 'reason', None) or error}."
            ) from None
        return context


def secret_in(name: str, path: str | os.PathLike) -> bytes:
    """What a file of a secret or a certificate holds; a pipe is not waited at.

    Args:
        name: The setting that says which file.
        path: File.

    Raises:
        ExtractionError: If it is no file, or cannot be read.

    Example:
        >>> secret_in("tls_key", "no.pem")
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: `tls_key` must be a file that can be \
read. Received: no.pem, No such file or directory.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("no file")
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ExtractionError(
            f"`{name}` must be a file that can be read. Received: {os.fspath(path)}, "
            f"{error.strerror or error}."
        ) from None


def _no_pass_phrase() -> str:
    """Where OpenSSL would ask for one on the terminal."""
    raise ValueError("a key that asks for a pass phrase")
