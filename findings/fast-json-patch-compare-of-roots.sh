#!/usr/bin/env bash
# fast-json-patch (npm): compare() finds no difference between an array and an object with the same members.
#
# Only at the root: one level deeper, the same difference becomes a "replace".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" fast-json-patch@3.1.1

echo "version: fast-json-patch@3.1.1, Node $(node --version)"
echo 'expected: [{"op":"replace","path":"","value":{"0":"a"}}]'
cat >"$folder/look.mjs" <<'JAVASCRIPT'
import patches from "fast-json-patch";

const atRoot = patches.compare(["a"], { 0: "a" });
const below = patches.compare({ list: ["a"] }, { list: { 0: "a" } });
console.log(JSON.stringify(atRoot), JSON.stringify(below));
JAVASCRIPT
seen=$(node "$folder/look.mjs")
echo "seen: $seen"
if [ "$seen" != '[] [{"op":"replace","path":"/list","value":{"0":"a"}}]' ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the patch between the roots is empty, so the array stays an array"
