#!/bin/sh
# Run a command while holding a lock, as flock(1) does, for programs on several machines. `leasehold lock` does this,
# and also ends the command in time if this script could not; here curl and jq are enough.
#
#     sh with_lock.sh NAME COMMAND [ARGUMENT...]
#
# Waits for the lock, renews the lease while the command runs, and ends the command when the lease is lost. The
# command finds the id of the lease in LEASE_ID, for writes with the header If-Lease.
set -eu
[ $# -ge 2 ] || { echo "usage: sh with_lock.sh NAME COMMAND [ARGUMENT...]" >&2; exit 2; }
url=${LEASEHOLD_URL:-http://127.0.0.1:8080}
ttl=15
lock="$url/locks/example/$1"
shift

while :; do
    answer=$(curl -sS -X POST "$lock" -d "{\"ttl\": $ttl, \"wait\": 30}") || { echo "no answer from $url" >&2; exit 1; }
    LEASE_ID=$(printf '%s' "$answer" | jq -r '.lease_id // empty')
    [ -z "$LEASE_ID" ] || break
    if [ "$(printf '%s' "$answer" | jq -r .error)" != lock_held ]; then
        echo "the lock cannot be acquired: $answer" >&2
        exit 1
    fi
done
export LEASE_ID

"$@" &
command=$!
(
    # Three attempts fit into one ttl. A sleep that is left over must not keep the caller's standard error open.
    while sleep $((ttl / 3)) 2>/dev/null; do
        status=$(curl -sS -o /dev/null -w '%{http_code}' -m $((ttl / 3)) -X PUT "$lock" -d "{\"lease_id\": \"$LEASE_ID\"}") \
            || continue
        if [ "$status" = 409 ]; then
            echo "the lease is lost" >&2
            kill "$command"
            exit
        fi
    done
) >/dev/null &
renewal=$!

code=0
wait "$command" || code=$?
kill "$renewal" 2>/dev/null || :
curl -sS -o /dev/null -X DELETE "$lock?lease_id=$LEASE_ID" || :
exit "$code"
