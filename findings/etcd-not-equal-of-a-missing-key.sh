#!/usr/bin/env bash
# etcd: "the value is not equal to x" is false for a key that does not exist.
#
# So a transaction that shall write unless the value is already x does not write the first value either. Comparisons of
# VERSION and MOD take a missing key as 0.
# Needs Debian's etcd-server 3.4 and curl.
set -euo pipefail
folder=$(mktemp -d)
etcd=
end() {
    [ -z "$etcd" ] || kill "$etcd" || true
    rm -rf "$folder"
}
trap end EXIT

version=$(etcd --version | head -1)
echo "version: $version"
case $version in "etcd Version: 3.4."*) ;; *) echo "another version than etcd 3.4"; exit 2 ;; esac

free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
url=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
etcd --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" --listen-peer-urls "$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$folder/log" 2>&1 &
etcd=$!
until curl --silent --fail "$url/health" >/dev/null; do sleep 0.2; done

base64_of() { printf '%s' "$1" | base64; }
succeeds() {  # COMPARISON: whether it holds for a key that was never written
    curl --silent "$url/v3/kv/txn" --data "{\"compare\": [{\"key\": \"$(base64_of never)\", $1}]}" |
        python3 -c 'import json, sys; print(json.load(sys.stdin).get("succeeded", False))'
}
echo "expected: all three are true"
by_value=$(succeeds "\"target\": \"VALUE\", \"result\": \"NOT_EQUAL\", \"value\": \"$(base64_of x)\"")
by_version=$(succeeds '"target": "VERSION", "result": "NOT_EQUAL", "version": 1')
by_revision=$(succeeds '"target": "MOD", "result": "NOT_EQUAL", "mod_revision": 1')
seen="VALUE $by_value, VERSION $by_version, MOD $by_revision"
echo "seen: $seen"
if [ "$seen" != "VALUE False, VERSION True, MOD True" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the comparison of the value is false for a missing key, and the others are true"
