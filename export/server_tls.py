"""Certificates of the local server, for gRPC and for REST."""

from __future__ import annotations

import dataclasses
import ssl

import grpc

from slotcon_client.security import secret_in


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Files of a server that is asked over TLS, in PEM format.

    Args:
        certificate: The server's, with those above it.
        key: The private key of it.
        client_ca: Who must have signed a client's certificate; empty: clients need
            none.

    Raises:
        ExtractionError: If a file cannot be read.
        OSError: If it is none of this kind.

    Example:
        >>> Certificates("no.pem", "no.key")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: `tls_certificate` must be a file ...
    """

    certificate: str
    key: str
    client_ca: str = ""

    def __post_init__(self) -> None:
        self.context()

    def context(self) -> ssl.SSLContext:
        """For REST."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._files()  # ssl does not say which of them it cannot read
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
        found = self._files()
        authority = found.get("client_ca")
        return grpc.ssl_server_credentials(
            [(found["tls_key"], found["tls_certificate"])],
            authority,
            require_client_auth=bool(authority),
        )

    def _files(self) -> dict[str, bytes]:
        """What is in them, by the names of the settings."""
        paths = {"tls_certificate": self.certificate, "tls_key": self.key}
        if self.client_ca:
            paths["client_ca"] = self.client_ca
        return {name: secret_in(name, path) for name, path in paths.items()}


def _no_pass_phrase() -> str:
    """Where OpenSSL would ask for one on the terminal."""
    raise ValueError("a key that asks for a pass phrase")
