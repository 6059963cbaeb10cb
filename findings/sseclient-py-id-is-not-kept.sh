#!/usr/bin/env bash
# sseclient-py (PyPI): an event without an id, after one with an id, has no id.
#
# By the HTML standard (section 9.2), the last event id stays until another one comes, and each event has the one that is
# set when it is dispatched. A client that resumes after the id of the last event it got begins anew.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sseclient-py==1.9.0

echo "version: sseclient-py==1.9.0"
echo "expected: both events have the id 5"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
import sseclient
stream = [b"id: 5\ndata: first\n\ndata: second\n\n"]
print([(event.data, event.id) for event in sseclient.SSEClient(iter(stream)).events()])
PYTHON
)
echo "seen: $seen"
if [ "$seen" != "[('first', '5'), ('second', None)]" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the id of the second event is None"
