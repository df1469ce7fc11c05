"""TLS of a server: its certificates, in a directory with the names that QEMU and nbdkit use.

`server-cert.pem` and `server-key.pem` are the server's. Only clients with a certificate that `ca-cert.pem` signed are
let in, unless the caller asks for anonymous ones: a missing file, or a broken link, is an error, not an open server.
"""

from __future__ import annotations

import ssl

from mirrortool import files
from mirrortool.errors import UsageError, host_error

CA_CERTIFICATE = "ca-cert.pem"
SERVER_CERTIFICATE = "server-cert.pem"
SERVER_KEY = "server-key.pem"


def server_context(directory: str, *, anonymous: bool = False) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificates of a directory.

    Args:
        anonymous: let in clients without a certificate, too; `ca-cert.pem` is not read.
    Raises:
        HostError: a file cannot be read.
        UsageError: a file has no certificate, or no key without a passphrase, or the key of another certificate; or
            there is no `ca-cert.pem`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # The empty passphrase: a key that has one is refused; a server must not ask for it.
        certificate, key = files.join(directory, SERVER_CERTIFICATE), files.join(directory, SERVER_KEY)
        context.load_cert_chain(certificate, key, password="")
        if not anonymous:
            context.load_verify_locations(_authority(directory))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        reason = error.reason or "not in PEM"
        raise UsageError(f"no usable certificates: {reason}", where=directory, remedy="make them anew") from error
    except OSError as error:
        raise host_error(error, directory, f"read {SERVER_CERTIFICATE}, {SERVER_KEY} or {CA_CERTIFICATE}") from error
    return context


def _authority(directory: str) -> str:
    path = files.join(directory, CA_CERTIFICATE)
    if not files.exists(path):
        raise UsageError(
            f"{CA_CERTIFICATE} is missing, and without it TLS lets in anybody",
            where=directory,
            remedy="put the certificate there that signed the clients', or give --tls-anonymous",
        )
    return path
