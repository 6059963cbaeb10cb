#!/usr/bin/env bash
# msgpackr (npm): integers from 2^32 on are written as floats.
#
# MessagePack has integers of 64 bits. @msgpack/msgpack writes 4294967296 as one. From msgpackr, a receiver with two types
# of numbers gets 4294967296.0: another JSON text, and a refusal where an integer is demanded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" msgpackr@2.1.4 @msgpack/msgpack@3.1.3

echo "version: msgpackr@2.1.4 @msgpack/msgpack@3.1.3, Node $(node --version)"
echo "expected: both write 4294967296 as uint64 (cf), and 4294967295 as uint32 (ce)"
cat >"$folder/look.mjs" <<'JAVASCRIPT'
import { encode } from "@msgpack/msgpack";
import { pack } from "msgpackr";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
for (const number of [2 ** 32 - 1, 2 ** 32]) {
    console.log(number, hex(pack(number)).slice(0, 2), hex(encode(number)).slice(0, 2));
}
JAVASCRIPT
seen=$(node "$folder/look.mjs")
echo "seen: $seen"
if [ "$seen" != $'4294967295 ce ce\n4294967296 cb cf' ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: msgpackr writes 4294967296 as a float (cb), without a word"
