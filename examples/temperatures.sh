#!/bin/sh
# State that two languages share: this script measures, and temperatures.py reads.
#
#     sh temperatures.sh TEMPERATURE...     # for example 21.5 22 19.75
#
# Each temperature is appended to a list in one entry. POST may not be repeated blindly, because it would append twice:
# so curl gets no --retry here.
set -eu
[ $# -ge 1 ] || { echo "usage: sh temperatures.sh TEMPERATURE..." >&2; exit 2; }
url=${LEASEHOLD_URL:-http://127.0.0.1:8080}

# The entry, with an empty list. 412 says that it is there already.
status=$(curl -sS -o /dev/null -w '%{http_code}' -X PUT -H 'If-None-Match: *' \
    "$url/kv/example/temperatures" -d '{"measured": []}')
case $status in
    201 | 412) ;;
    *) echo "the list cannot be created: HTTP $status" >&2; exit 1 ;;
esac

for temperature; do
    curl -sS --fail-with-body -o /dev/null -X POST "$url/kv/example/temperatures?path=/measured/-" -d "$temperature" \
        || { echo "$temperature was not stored" >&2; exit 1; }
done
