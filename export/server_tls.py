"""Certificates of the local server, for gRPC and for REST."""

from __future__ import annotations

import dataclasses
import pathlib
import ssl

import grpc


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Files of a server that is asked over TLS, in PEM format.

    Args:
        certificate: The server's, with those above it.
        key: The private key of it.
        client_ca: Who must have signed a client's certificate; empty: clients need
            none.

    Raises:
        OSError: If a file cannot be read, or is none of this kind.

    Example:
        >>> Certificates("no.pem", "no.key")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        OSError: `tls_certificate`, `tls_key` and `client_ca` must be PEM files. ...
    """

    certificate: str
    key: str
    client_ca: str = ""

    def __post_init__(self) -> None:
        self.context()

    def context(self) -> ssl.SSLContext:
        """For REST."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, _no_pass_phrase)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise OSError(
                "`tls_certificate`, `tls_key` and `client_ca` must be PEM files. "
                f"Received: {self.certificate}, {self.key}, {self.client_ca or '-'}: "
                f"{error}."
            ) from None
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC."""
        key, certificate = (
            pathlib.Path(path).read_bytes() for path in (self.key, self.certificate)
        )
        authority = (
            pathlib.Path(self.client_ca).read_bytes() if self.client_ca else None
        )
        return grpc.ssl_server_credentials(
            [(key, certificate)], authority, require_client_auth=bool(authority)
        )


def _no_pass_phrase() -> str:
    """Where OpenSSL would ask for one on the terminal."""
    raise ValueError("a key that asks for a pass phrase")
