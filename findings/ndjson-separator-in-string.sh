#!/usr/bin/env bash
# ndjson (PyPI): a line separator inside a string becomes a comma.
#
# U+2028, U+2029 and U+0085 may stand unescaped in a JSON string (RFC 8259, section 7). They end no line of NDJSON, where
# only \n does. The reader splits the text at them, and joins the parts with commas.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ndjson==0.3.1

echo "version: ndjson==0.3.1"
echo "expected: the strings come back as they are in the text, or an error"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
import ndjson
text = '{"note": "one\u2028two"}\n{"note": "three\u0085four"}\n'
print(ascii(ndjson.loads(text)))
PYTHON
)
echo "seen: $seen"
if [ "$seen" != "[{'note': 'one,two'}, {'note': 'three,four'}]" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the separators were replaced by commas, without an error"
