"""Real proxies in front of a server, with the exact configurations from `docs/proxies.md`.

Only what a test on loopback requires is changed: ports, the certificate, and the location of the proxy's own files.
"""

import functools
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from programs import program
from running import ANSWER_SECONDS, START_SECONDS, Answer, Wire, free_port

PAGE: Final = Path(__file__).parents[1] / "docs" / "proxies.md"
HOST: Final = "db.example.com"

NGINX: Final = """
daemon off; error_log stderr; pid {folder}/pid; worker_processes 1;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {block}
}}
"""
APACHE: Final = (
    """
ServerRoot {folder}
PidFile {folder}/pid
ErrorLog {folder}/log
Listen 127.0.0.1:{port}
"""
    + "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in ("mpm_event", "authz_core", "env", "socache_shmcb", "ssl", "proxy", "proxy_http")
    )
    + "{block}\n"
)


@dataclass(frozen=True)
class Kind:
    """How to run one kind of proxy. `around`: the text around the block of the page."""

    name: str
    language: str
    arguments: Sequence[str]
    around: str = "{block}"


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("nginx", "nginx", ["-c", "{file}", "-p", "{folder}"], NGINX),
        Kind("haproxy", "haproxy", ["-db", "-f", "{file}"]),
        Kind("apache2", "apache", ["-D", "FOREGROUND", "-f", "{file}"], APACHE),
        Kind(
            "varnishd",
            "text",
            [
                "-j",
                "none",
                "-F",
                "-n",
                "{folder}/varnish",
                "-a",
                "127.0.0.1:{port}",
                "-f",
                "{file}",
                "-s",
                "malloc,64m",
            ],
        ),
        Kind(
            "lighttpd",
            "lighttpd",
            ["-D", "-f", "{file}"],
            'server.document-root = "{folder}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n{block}',
        ),
    )
}


@dataclass(frozen=True)
class Front:
    """A running proxy, at `address`."""

    address: tuple[str, int]
    tls: bool
    client: httpx.Client

    def wire(self) -> Wire:
        """A connection to the proxy, for requests byte by byte."""
        return _TlsWire(self) if self.tls else Wire(self)

    def ask(self, method: str, target: str, *fields: str, body: bytes | None = None) -> Answer:
        """Send one request on its own connection. The target is sent unchanged."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}", "Connection: close", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        with self.wire() as wire:
            return wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")).answer(to=method)


@functools.cache
def _trusting_anybody() -> ssl.SSLContext:
    """Not the default context, which reads the certificates that the system trusts: longer than a test takes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _TlsWire(Wire):
    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self._received.close()
        self.socket = _trusting_anybody().wrap_socket(self.socket)
        self._received = self.socket.makefile("rb")


def block_of(kind: Kind) -> str:
    """The configuration exactly as on the page."""
    section = {
        "nginx": "nginx",
        "haproxy": "HAProxy",
        "apache2": "Apache",
        "varnishd": "Varnish",
        "lighttpd": "lighttpd",
    }[kind.name]
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    match = re.search(rf"```{kind.language}\n(.*?)```", text, re.DOTALL)
    assert match is not None, f"{PAGE} has no configuration of {section}"
    return match[1]


def under_a_path(block: str) -> str:
    """The configuration of nginx, which also serves the service under `/leasehold/`, as the page says."""
    section = PAGE.read_text("utf-8").partition("\n### Under a path\n")[2].partition("\n## ")[0]
    mapping, first_lines = re.findall(r"```nginx\n(.*?)```", section, re.DOTALL)
    found = re.search(r"    location / \{\n.*?\n(.*?\n    \}\n)", block, re.DOTALL)
    assert found is not None, block
    return str(mapping) + block.replace(found[0], found[0] + first_lines + found[1])


@contextmanager
def fronted(
    name: str, origin_port: int, folder: Path, *, changed: Callable[[str], str] = lambda block: block
) -> Iterator[Front]:
    """Run a proxy in front of the server at `origin_port`. `changed`: the test's change of the configuration."""
    kind = KINDS[name]
    certificate, key = _certificate(folder)
    with free_port() as port:
        block = changed(block_of(kind))
        has_tls = "/etc/ssl/" in block
        for before, after in (
            ("127.0.0.1:8080", f"127.0.0.1:{origin_port}"),
            ('"8080"', f'"{origin_port}"'),
            ('"port" => 8080', f'"port" => {origin_port}'),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("bind :443", f"bind 127.0.0.1:{port}"),
            ("<VirtualHost *:443>", f"<VirtualHost 127.0.0.1:{port}>"),
            ("/etc/ssl/db.example.com.pem", str(certificate)),
            ("/etc/ssl/db.example.com.key", str(key)),
        ):
            block = block.replace(before, after)
        file = folder / f"{name}.conf"
        file.write_text(kind.around.format(folder=folder, port=port, block=block))
        arguments = [each.format(file=file, folder=folder, port=port) for each in kind.arguments]
        output = folder / f"{name}.out"
        with output.open("w") as written:
            process = subprocess.Popen([str(program(name)), *arguments], stdout=written, stderr=written)
        try:
            scheme = "https" if has_tls else "http"
            with httpx.Client(
                base_url=f"{scheme}://127.0.0.1:{port}",
                headers={"Host": HOST, "Accept-Encoding": "gzip, deflate, br"},
                verify=False,
                timeout=ANSWER_SECONDS,
            ) as client:
                _wait_for(client, process, output)
                yield Front(("127.0.0.1", port), has_tls, client)
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate with its key in one file, as HAProxy requires, and the key alone."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not certificate.exists():
        subject = ["-subj", f"/CN={HOST}", "-days", "2"]
        command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run([str(program("openssl")), *command], check=True, capture_output=True)
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return certificate, key


def _wait_for(client: httpx.Client, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if client.get("/health/live").status_code == 200:
                return
        except httpx.TransportError:
            assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
