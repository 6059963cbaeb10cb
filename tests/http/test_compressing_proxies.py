"""Real proxies that compress answers change ETags. In If-Match the changed ETag is refused, and the error says why."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from programs import program
from running import START_SECONDS, Server, free_port, refusal, running, tag_of

NGINX = """
daemon off; error_log stderr; pid {folder}/pid; worker_processes 1;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    client_body_buffer_size 1m; proxy_max_temp_file_size 0;
    gzip on; gzip_types application/json; gzip_proxied any;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{origin}; proxy_http_version 1.1; proxy_set_header Host localhost; }}
    }}
}}
"""
APACHE = """
ServerRoot {folder}
PidFile {folder}/pid
ErrorLog {folder}/log
Listen 127.0.0.1:{port}
ServerName localhost
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule filter_module /usr/lib/apache2/modules/mod_filter.so
LoadModule deflate_module /usr/lib/apache2/modules/mod_deflate.so
SetOutputFilter DEFLATE
ProxyPass / http://127.0.0.1:{origin}/ nocanon
AllowEncodedSlashes NoDecode
"""
HAPROXY = """
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
listen proxy
    bind 127.0.0.1:{port}
    compression algo gzip
    compression type application/json
    server origin 127.0.0.1:{origin}
"""
PROXIES: Mapping[str, tuple[str, list[str]]] = {
    "nginx": (NGINX, ["-c", "{file}", "-p", "{folder}"]),
    "apache2": (APACHE, ["-D", "FOREGROUND", "-f", "{file}"]),
    "haproxy": (HAPROXY, ["-db", "-f", "{file}"]),
}
LARGE = "x" * 20_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Server]:
    with running() as server:
        yield server


@contextmanager
def proxied(name: str, origin: Server, folder: Path) -> Iterator[httpx.Client]:
    """A client of the proxy, which asks for compressed answers as browsers do."""
    configuration, arguments = PROXIES[name]
    with free_port() as port:
        file = folder / "configuration"
        file.write_text(configuration.format(folder=folder, port=port, origin=origin.address[1]))
        command = [str(program(name)), *(each.format(file=file, folder=folder) for each in arguments)]
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            headers = {"Accept-Encoding": "gzip", "Host": "localhost"}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, verify=False) as client:
                wait_for(client, process, folder / "output")
                yield client
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def wait_for(client: httpx.Client, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if client.get("/health/live").status_code == 200:
                return
        except httpx.TransportError:
            assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("name", PROXIES)
def test_an_etag_that_a_real_proxy_changed_is_refused_with_the_reason_and_the_bare_revision_works(
    name: str, origin: Server, key: str, tmp_path: Path
) -> None:
    with proxied(name, origin, tmp_path) as client:
        assert client.put(f"/kv/{key}", content=json.dumps(LARGE)).status_code == 201
        read = client.get(f"/kv/{key}")
        changed = read.headers["ETag"]
        assert read.headers["Content-Encoding"] == "gzip"
        assert changed != tag_of(origin, read.json()["revision"])
        refused = client.put(f"/kv/{key}", content="1", headers={"If-Match": changed})
        assert refusal(refused) == (412, "precondition_failed")
        assert "a proxy that compresses has changed the ETag" in refused.json()["message"]
        assert origin.value(key) == LARGE
        bare = f'"{read.json()["revision"]}"'
        assert client.put(f"/kv/{key}", content="1", headers={"If-Match": bare}).status_code == 200


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_an_etag_that_a_proxy_made_weak_still_gives_not_modified(
    name: str, origin: Server, key: str, tmp_path: Path
) -> None:
    with proxied(name, origin, tmp_path) as client:
        client.put(f"/kv/{key}", content=json.dumps(LARGE))
        weak = client.get(f"/kv/{key}").headers["ETag"]
        assert weak.startswith("W/")
        assert client.get(f"/kv/{key}", headers={"If-None-Match": weak}).status_code == 304
        client.put(f"/kv/{key}", content=json.dumps(LARGE + "y"))
        assert client.get(f"/kv/{key}", headers={"If-None-Match": weak}).status_code == 200
