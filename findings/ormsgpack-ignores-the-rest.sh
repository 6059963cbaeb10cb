#!/usr/bin/env bash
# ormsgpack (PyPI): bytes after the first value are ignored without an error.
#
# Two messages that arrived together look like one. msgpack and msgspec raise an error for the same bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ormsgpack==1.13.1 msgpack==1.2.4

echo "version: ormsgpack==1.13.1 msgpack==1.2.4"
echo "expected: unpackb of two values raises an error, as that of msgpack does"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
import msgpack
import ormsgpack

two = ormsgpack.packb({"id": 1}) + ormsgpack.packb({"id": 2})
try:
    other = repr(msgpack.unpackb(two))
except msgpack.ExtraData:
    other = "ExtraData"
print(f"ormsgpack {ormsgpack.unpackb(two)}, msgpack {other}")
PYTHON
)
echo "seen: $seen"
if [ "$seen" != "ormsgpack {'id': 1}, msgpack ExtraData" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: only the first value is returned, and nothing says that there was more"
