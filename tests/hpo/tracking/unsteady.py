"""A proxy in front of a server that does to requests what networks and servers do."""

from __future__ import annotations

import base64
import datetime
import http.client
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_END_TO_END = ("content-type", "authorization")


class Unsteady(ThreadingHTTPServer):
    """Passes requests on, unless `mood` says what happens to a request, given how many there were."""

    daemon_threads = True

    def __init__(self, behind: str | None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behind = behind
        self.seen: list[str] = []
        self.carried_out: list[tuple[str, bytes]] = []
        """Path and body of every request that the server behind has answered with success."""
        self.token: str | None = None
        """Requests without it are refused; the server behind gets `login` in its place."""
        self.login = ""
        self.mood: Any = lambda count: "fine"
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that have gone away, or do not trust its certificate, are what it is for."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        server.seen.append(f"{self.command} {self.path}")
        mood = server.mood(len(server.seen))
        if server.token is not None and self.headers.get("authorization") != f"Bearer {server.token}":
            mood = 401
        if server.closing.is_set():  # a connection that was kept open
            mood = "lost"
        if mood == "slow":
            server.closing.wait(0.1)
        if mood == "hangs":
            server.closing.wait(30)
        elif mood == "lost":  # before it was carried out
            self.close_connection = True
        elif mood == "page":
            self._answer(200, b"<html>a login page</html>", "text/html")
        elif isinstance(mood, int):
            self._answer(mood, b"no", "text/plain")
        else:
            status, answer, kind = self._passed_on(server.behind, body)
            if mood == "unheard":  # carried out, and nobody knows
                self.close_connection = True
            else:
                self._answer(status, answer, kind)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815  # as http.server calls them

    def _passed_on(self, behind: str, body: bytes) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(behind, timeout=30)
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() in _END_TO_END}
        server: Any = self.server
        if server.token is not None:
            headers["authorization"] = f"Basic {base64.b64encode(server.login.encode()).decode()}"
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status < 400:
            server.carried_out.append((self.path, body))
        return answer.status, content, answer.headers.get("content-type", "application/json")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def unsteady(behind: str | None = None, port: int = 0, certificate: Path | None = None) -> Iterator[Unsteady]:
    """A proxy that runs in threads of this process; with a certificate it speaks TLS."""
    server = Unsteady(behind, port)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def self_signed(file: Path, address: str = "127.0.0.1", days: int = 1) -> Path:
    """Write a key and a certificate of its own for an address; `days` until it expires."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of tests")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=9)).not_valid_after(now + datetime.timedelta(days))
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = builder.add_extension(addresses, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(pem))
    return file
