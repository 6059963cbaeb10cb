#!/usr/bin/env bash
# etcd, JSON gateway: members with an unknown name are ignored, so a lease for 60 s is granted for 2 s.
#
# Names differ in case as in the gRPC messages: TTL, but key and value. A wrong one is no error. The same holds for text
# after the JSON object.
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

member() { python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1]))' "$1"; }
echo 'expected: an error for {"ttl": 60}, as for {"TTL": "soon"}'
wrong_type=$(curl --silent "$url/v3/lease/grant" --data '{"TTL": "soon"}' | member code)
lower_case=$(curl --silent "$url/v3/lease/grant" --data '{"ttl": 60}' | member TTL)
rest=$(curl --silent "$url/v3/lease/grant" --data '{"TTL": 60} {"ID"' | member TTL)
seen="code $wrong_type; TTL $lower_case; TTL $rest"
echo "seen: $seen"
if [ "$seen" != "code 3; TTL 2; TTL 60" ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: the lease is granted with the shortest time; what follows the object is not read"
