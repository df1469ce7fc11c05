"""Certificates of an authority of the test's own, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certify(where: Path, authority: Path, holder: str) -> None:
    """A key and a certificate that the authority signed."""
    key, request, extra = where / f"{holder}-key.pem", where / "request", where / "extra"
    extra.write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    subject = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={holder}"]
    run("openssl", "req", *subject, "-keyout", key, "-out", request)
    signing = ["-CA", authority / "ca-cert.pem", "-CAkey", authority / "ca-key.pem", "-CAcreateserial", "-days", "2"]
    run("openssl", "x509", "-req", "-in", request, *signing, "-extfile", extra, "-out", where / f"{holder}-cert.pem")


def make_authority(where: Path) -> None:
    """With what Python asks of one from 3.13 on: that its key may sign certificates (RFC 5280, 4.2.1.3)."""
    where.mkdir(exist_ok=True)
    subject = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=authority"]
    run(
        "openssl",
        "req",
        "-x509",
        "-days",
        "2",
        *subject,
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout",
        where / "ca-key.pem",
        "-out",
        where / "ca-cert.pem",
    )


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
