"""The certificates of a control plane, and the files by which somebody else can log in."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import trustme

SERVER_NAMES = ("127.0.0.1", "::1", "localhost", "kubernetes.default.svc", "kubernetes")


class Identities:
    """A certificate authority of our own and what it issued, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._authority = trustme.CA()
        self.authority = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(self.authority)
        self.server, self.server_key = self.issue("server", *SERVER_NAMES)
        self.admin, self.admin_key = self.issue("admin", groups="system:masters")
        self.tokens, self.tokens_key = self.issue("service-accounts")

    def issue(self, name: str, *addresses: str, groups: str = "") -> tuple[Path, Path]:
        """Return the files of a certificate and of its key.

        The API server takes the common name as the user and the organization as the group.
        """
        issued = self._authority.issue_cert(
            *(addresses or (name,)), common_name=name, organization_name=groups or None
        )
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        _write_secret(key, issued.private_key_pem.bytes())
        return certificate, key

    def context(self) -> ssl.SSLContext:
        """Return what the connection of anybody needs, to trust the API server."""
        return ssl.create_default_context(cafile=str(self.authority))

    def admin_context(self) -> ssl.SSLContext:
        """Return what a connection of the administrator needs."""
        context = self.context()
        context.load_cert_chain(self.admin, self.admin_key)
        return context

    def kubeconfig(self, file: Path, server: str, *, token: str | None = None) -> Path:
        """Write a kubeconfig, of the administrator or of who has the token, and return the file.

        The token lies beside it, in `<file>.token`; a new one can be written there at any time.
        """
        user = {"client-certificate": str(self.admin), "client-key": str(self.admin_key)}
        if token is not None:
            token_file = file.with_name(f"{file.name}.token")
            _write_secret(token_file, token.encode())
            user = {"tokenFile": str(token_file)}
        cluster = {"server": server, "certificate-authority": str(self.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file.write_text(json.dumps(content, indent=2))
        return file


def _write_secret(file: Path, content: bytes) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as secret:
        secret.write(content)
