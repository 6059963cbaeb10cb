#!/usr/bin/env bash
# json-merge-patch (PyPI): a patch made from two documents lacks a change of 1 to true, and of 0 to false.
#
# In JSON, 1 and true are different values. The patch is made with the equality of Python, in which they are the same, so
# a caller who sends it leaves the old value in place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check json-merge-patch==0.3.0

echo "version: json-merge-patch==0.3.0"
echo 'expected: {"count": true, "flags": [false]}'
seen=$("$folder/venv/bin/python" - <<'PYTHON'
import json_merge_patch
print(json_merge_patch.create_patch({"count": 1, "flags": [0]}, {"count": True, "flags": [False]}))
PYTHON
)
echo "seen: $seen"
if [ "$seen" != "{}" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the patch is empty, so nothing changes when it is applied"
