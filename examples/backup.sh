#!/bin/sh
# Back up a running service, and keep the newest backups: for cron.
#
#     sh backup.sh FOLDER [KEEP]
#
# `leasehold backup` writes a file only if the backup is whole and on disk, so there is never half of one. With tokens,
# name a file with one that may read all in LEASEHOLD_TOKEN_FILE.
set -eu
[ $# -ge 1 ] || { echo "usage: sh backup.sh FOLDER [KEEP]" >&2; exit 2; }
url=${LEASEHOLD_URL:-http://127.0.0.1:8080}
folder=$1
keep=${2:-7}
file="$folder/leasehold-$(date -u +%Y%m%dT%H%M%S).json"

mkdir -p "$folder"
leasehold backup "$file" --url "$url"
echo "$file"

# The names grow with the time. All but the newest ones go.
find "$folder" -name 'leasehold-*.json' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm "$old"
done
