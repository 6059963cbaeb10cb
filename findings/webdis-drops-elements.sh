#!/usr/bin/env bash
# webdis: the answer to MGET lacks the elements whose values are not UTF-8, so those after them have other positions.
#
# A client that pairs the keys it asked for with the values of the answer gives one key the value of another.
# Needs Debian's webdis 0.1.9, redis-server and curl.
set -euo pipefail
folder=$(mktemp -d)
pids=()
end() {
    [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" || true
    rm -rf "$folder"
}
trap end EXIT

version=$(dpkg-query --show --showformat '${Version}' webdis)
echo "version: webdis $version"
case $version in 0.1.9*) ;; *) echo "another version than webdis 0.1.9"; exit 2 ;; esac

port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$folder/webdis.json" <<JSON
{"redis_host": "$folder/redis", "redis_port": 0, "http_host": "127.0.0.1", "http_port": $port, "threads": 1,
 "daemonize": false, "verbosity": 1, "logfile": "$folder/log"}
JSON
redis-server --port 0 --unixsocket "$folder/redis" --save "" --dir "$folder" >/dev/null &
pids+=($!)
until redis-cli -s "$folder/redis" ping >/dev/null 2>&1; do sleep 0.1; done
webdis "$folder/webdis.json" >/dev/null &
pids+=($!)
until curl --silent --fail "http://127.0.0.1:$port/PING" >/dev/null; do sleep 0.1; done

printf 'a\xff' | redis-cli -s "$folder/redis" -x set bytes >/dev/null
redis-cli -s "$folder/redis" set text t >/dev/null
echo 'expected: {"MGET":[null,"t"]}, or an error: two keys have two elements'
seen=$(curl --silent "http://127.0.0.1:$port/MGET/bytes/text")
echo "seen: $seen"
if [ "$seen" != '{"MGET":["t"]}' ]; then
    echo "behaviour changed"
    exit 1
fi
echo "behaviour: one element is missing, and the value of the second key is at the position of the first"
