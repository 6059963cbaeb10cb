#!/bin/sh
# A job that several machines start at the same time, and that runs once a day: for cron on each of them.
#
#     sh nightly_job.sh NAME COMMAND [ARGUMENT...]
#
# The machine that gets the lock runs the command. That it is done is stored under the day, fenced by the lease, so
# that no machine runs it again. If the machine dies, the lease ends, and the next start runs the command again.
set -eu
[ $# -ge 2 ] || { echo "usage: sh nightly_job.sh NAME COMMAND [ARGUMENT...]" >&2; exit 2; }
url=${LEASEHOLD_URL:-http://127.0.0.1:8080}
name=$1
shift
day=$(date -u +%Y-%m-%d)
done_key="$url/kv/example/jobs/$name/$day"

if ! answer=$(curl -s --fail-with-body -X POST "$url/locks/example/jobs/$name" -d '{"ttl": 3600, "wait": 0}'); then
    if [ "$(printf '%s' "$answer" | jq -r .error)" = lock_held ]; then
        echo "another machine runs it"
        exit 0
    fi
    echo "the lock cannot be acquired: ${answer:-no answer from $url}" >&2
    exit 1
fi
lease=$(printf '%s' "$answer" | jq -r .lease_id)
trap 'curl -sS -o /dev/null -X DELETE "$url/locks/example/jobs/$name?lease_id=$lease"' EXIT

status=$(curl -sS -o /dev/null -w '%{http_code}' "$done_key")
case $status in
    200) echo "done already"; exit 0 ;;
    404) ;;
    *) echo "the state cannot be read: HTTP $status" >&2; exit 1 ;;
esac
"$@"
curl -sS --fail-with-body -o /dev/null -X PUT -H "If-Lease: $lease" "$done_key?ttl=172800" -d "\"$(date -u +%FT%TZ)\"" \
    || { echo "the command ran, and that it did cannot be stored" >&2; exit 1; }
