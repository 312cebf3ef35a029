"""How a connection to a target is encrypted: certificates are always checked."""

import ssl

from needfire_server.outputs.settings import TlsSettings

__all__ = ["client_context"]


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context that checks the target's certificate and its name.

    There is no way to switch that off: who reads the records decides what is noticed.

    Raises:
        OSError, ssl.SSLError: a file cannot be read or used.
    """
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate_file is not None:
        # Without a password: a key that asks for one would ask on the terminal, for ever.
        context.load_cert_chain(
            settings.certificate_file, settings.private_key_file, password=lambda: b""
        )
    return context
