"""TLS: certificates, in a directory with the names that QEMU, nbdkit and libnbd use.

`server-cert.pem` and `server-key.pem` are a server's, `client-cert.pem` and `client-key.pem` a client's; `ca-cert.pem`
signed those of the other side.
A server lets in only clients with a certificate that `ca-cert.pem` signed, unless the caller asks for anonymous ones:
a missing file, or a broken link, is an error, not an open server.
"""

from __future__ import annotations

import ssl

from mirrortool import files
from mirrortool.errors import UsageError, host_error

CA_CERTIFICATE = "ca-cert.pem"
SERVER_CERTIFICATE = "server-cert.pem"
SERVER_KEY = "server-key.pem"
CLIENT_CERTIFICATE = "client-cert.pem"
CLIENT_KEY = "client-key.pem"


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


def client_context(directory: str | None, *, checks_hostname: bool) -> ssl.SSLContext:
    """TLS 1.2 or newer with a server whose certificate is signed by an authority that is trusted.

    Args:
        directory: has `ca-cert.pem`, and for a server that asks for one the client's own certificate, `client-cert.pem`
            and `client-key.pem`; None trusts the authorities that this host trusts, and has none of its own.
        checks_hostname: whether the server's certificate must have the name that is asked for.
    Raises:
        HostError, UsageError: as server_context.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = checks_hostname
    if directory is None:
        context.load_default_certs()
        return context
    certificate, key = files.join(directory, CLIENT_CERTIFICATE), files.join(directory, CLIENT_KEY)
    try:
        context.load_verify_locations(files.join(directory, CA_CERTIFICATE))
        if files.exists(certificate) or files.exists(key):
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        reason = error.reason or "not in PEM"
        raise UsageError(f"no usable certificates: {reason}", where=directory, remedy="make them anew") from error
    except OSError as error:
        raise host_error(error, directory, f"read {CA_CERTIFICATE}, {CLIENT_CERTIFICATE} or {CLIENT_KEY}") from error
    return context
