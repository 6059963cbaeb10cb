#!/usr/bin/env bash
# httpx-sse and sseclient-py (PyPI): the first event of a stream with a byte order mark is lost.
#
# By the HTML standard (section 9.2.6), one leading byte order mark is ignored. Both readers take it as a part of the name
# of the first field, so the field has an unknown name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check httpx-sse==0.4.3 httpx==0.28.1 sseclient-py==1.9.0

echo "version: httpx-sse==0.4.3 httpx==0.28.1 sseclient-py==1.9.0"
echo "expected: both readers give two events: first, second"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
import httpx
import httpx_sse
import sseclient

stream = b"\xef\xbb\xbfdata: first\n\ndata: second\n\n"
response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=stream)
by_httpx = [event.data for event in httpx_sse.EventSource(response).iter_sse()]
by_sseclient = [event.data for event in sseclient.SSEClient(iter([stream])).events()]
print(by_httpx, by_sseclient)
PYTHON
)
echo "seen: $seen"
if [ "$seen" != "['second'] ['second']" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the first event is missing, and there is no error"
