"""Certificates for tests, made by the openssl command: an authority, and a server under it."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder of its own."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def server_context(self, name: str, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for `DNS:x` and `IP:y` names."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names)}\n")
        _openssl("req", "-newkey", "ec:" + str(self._curve()), "-nodes", "-keyout", key, "-out", request)
        signing = ("-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-days", "2", "-out", certificate, *signing)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def _curve(self) -> Path:
        curve = self.folder / "curve.pem"
        if not curve.exists():
            _openssl("ecparam", "-name", "prime256v1", "-out", curve)
        return curve


def make_authority(folder: Path) -> Authority:
    """Creates the authority's key and certificate in `folder`."""
    authority = Authority(folder)
    curve = authority._curve()
    options = ("-x509", "-newkey", f"ec:{curve}", "-nodes", "-days", "2", "-keyout", folder / "ca.key")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl("req", *options, "-out", authority.certificate, *usage, subject="/CN=Test authority")
    return authority


def _openssl(command: str, *arguments: object, subject: str = "/CN=test") -> None:
    named = ("-subj", subject) if command == "req" else ()
    subprocess.run(["openssl", command, *map(str, arguments), *named], check=True, capture_output=True)
