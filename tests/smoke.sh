#!/usr/bin/env bash
# Every table at smoke scale, end to end, in a folder of its own; the second call must be quick.
#   tests/smoke.sh .venv/bin/python
set -euo pipefail
python=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

table() {
  "$python" -m experiments.table --flagfile="flags/tables/table$1.cfg" --scale=smoke \
    --runs_dir="$folder/runs" --data_dir="$folder/tfds" "${@:2}"
}

table 1 --strong >"$folder/first" 2>"$folder/errors" || { cat "$folder/first" "$folder/errors"; exit 1; }
sed -n '/^| Model/,/^$/p' "$folder/first" >"$folder/table_first"
[ "$(wc -l <"$folder/table_first")" -ge 10 ]
if sed -n '3,$p' "$folder/table_first" | cut -d'|' -f3,5,7,9,11 | grep -q –; then
  echo "a number is missing"; cat "$folder/table_first"; exit 1
fi
table 1 --strong >"$folder/second" 2>>"$folder/errors"
sed -n '/^| Model/,/^$/p' "$folder/second" | diff "$folder/table_first" -
cat "$folder/table_first"
