#!/usr/bin/env bash
# rfc6902 (npm): after a failed "test", applyPatch() applies the operations that follow.
#
# RFC 6902, section 5: processing must stop at the operation that fails, and the patch as a whole is not successful. The
# errors are returned in a list, so a caller who does not read it has a document that was changed in part.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" rfc6902@5.4.0

echo "version: rfc6902@5.4.0, Node $(node --version)"
echo 'expected: {"version":1} is unchanged, because the test of the version fails'
cat >"$folder/look.mjs" <<'JAVASCRIPT'
import { applyPatch } from "rfc6902";

const document = { version: 1 };
const errors = applyPatch(document, [
    { op: "test", path: "/version", value: 2 },
    { op: "add", path: "/done", value: true },
]);
console.log(JSON.stringify(document), errors.map((error) => error?.name ?? "applied").join(","));
JAVASCRIPT
seen=$(node "$folder/look.mjs")
echo "seen: $seen"
if [ "$seen" != '{"version":1,"done":true} TestError,applied' ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the operation after the failed test was applied"
