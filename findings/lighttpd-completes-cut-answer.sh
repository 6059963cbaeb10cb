#!/usr/bin/env bash
# lighttpd 1.4 as a reverse proxy: an upstream answer in chunks that is cut before its last chunk reaches the client as
# a complete answer, with the Content-Length of what had come.
#
# RFC 9112, section 8: an answer in chunks is incomplete without its zero-sized chunk, and a proxy must not make a
# complete one of it. Expected: the client sees that the answer is not whole (a closed connection, or 502).
# Needs Debian's lighttpd 1.4 and python3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PATH=$PATH:/usr/sbin

version=$(lighttpd -v | head -1)
echo "version: $version"
case $version in lighttpd/1.4.*) ;; *) echo "another version than lighttpd 1.4"; exit 2 ;; esac

cat >"$folder/look.py" <<'PYTHON'
import pathlib, socket, subprocess, sys, threading, time

folder = pathlib.Path(sys.argv[1])
origin = socket.create_server(("127.0.0.1", 0))

def serve() -> None:
    while True:
        connection, _ = origin.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            # The process dies here: no last chunk.

threading.Thread(target=serve, daemon=True).start()
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
(folder / "lighttpd.conf").write_text(f'''
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.modules = ( "mod_proxy" )
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => {origin.getsockname()[1]} )) )
''')
proxy = subprocess.Popen(["lighttpd", "-D", "-f", str(folder / "lighttpd.conf")], stderr=subprocess.DEVNULL)
try:
    for _ in range(200):
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            break
        except OSError:
            time.sleep(0.05)
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b"".join(iter(lambda: client.recv(65536), b""))
finally:
    proxy.terminate()
    proxy.wait()
print(answer.decode())
head, _, body = answer.partition(b"\r\n\r\n")
looks_whole = b"200 OK" in head and b"Content-Length: 4" in head and body == b"half"
sys.exit(0 if looks_whole else 1)
PYTHON

echo "expected: an answer that the client can tell to be incomplete, or 502"
echo "seen:"
if python3 "$folder/look.py" "$folder"; then
    echo "behaviour: the cut answer was given as a complete one, with a Content-Length"
    echo "remedy: server.stream-response-body = 1 or 2"
else
    echo "behaviour changed: the cut answer no longer looks complete"
    exit 1
fi
