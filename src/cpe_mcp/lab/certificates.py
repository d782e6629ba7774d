"""Certificates for the lab and the tests, made by the program openssl when they are needed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

PROGRAM = "openssl"
PAST, FUTURE, FAR = "20200101000000Z", "20500101000000Z", "20900101000000Z"
"""ASN.1 GeneralizedTime."""


class Pair(NamedTuple):
    """A certificate and its key, PEM."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; everything is in ``directory``. Raises OSError, CalledProcessError."""

    def __init__(self, directory: Path, name: str = "Lab CA") -> None:
        directory.mkdir(mode=0o700, parents=True)
        self._directory = directory
        self.pair = Pair(directory / "ca.pem", directory / "ca.key")
        self._run("req", "-x509", *_new_key(self.pair.key, name), "-days", "3650", "-out", str(self.pair.cert))
        (directory / "index").write_text("")
        (directory / "ca.conf").write_text(
            "[ca]\ndefault_ca = lab\n[lab]\n"
            f"database = {directory}/index\nnew_certs_dir = {directory}\nrand_serial = yes\n"
            "default_md = sha256\npolicy = any\ncopy_extensions = copy\nunique_subject = no\n"
            "[any]\ncommonName = supplied\n"
        )

    def sign(self, name: str, *, alternative: str = "", begins: str = PAST, ends: str = FAR) -> Pair:
        """A new certificate of ``name``, for ``alternative`` too, such as ``DNS:radius.example`` or ``IP:192.0.2.1``."""
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request = str(self._directory / f"{name}.csr")
        extension = ["-addext", f"subjectAltName={alternative}"] if alternative else []
        self._run("req", *_new_key(pair.key, name), *extension, "-out", request)
        signer = ["-config", f"{self._directory}/ca.conf", "-cert", str(self.pair.cert), "-keyfile", str(self.pair.key)]
        dates = ["-startdate", begins, "-enddate", ends]
        self._run("ca", "-batch", "-notext", *signer, *dates, "-in", request, "-out", str(pair.cert))
        return pair

    def _run(self, *arguments: str) -> None:
        subprocess.run([PROGRAM, *arguments], check=True, capture_output=True, timeout=30)


def _new_key(path: Path, name: str) -> list[str]:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    return [*curve, "-nodes", "-keyout", str(path), "-subj", f"/CN={name}"]
