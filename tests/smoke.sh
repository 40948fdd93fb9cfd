#!/usr/bin/env bash
# Every row of all five tables at smoke scale, end to end, from embedded and generated data, in a
# folder of its own:   tests/smoke.sh .venv/bin/python
set -euo pipefail
python=$1
folder=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$folder"' EXIT

# table LOG NUMBER FLAGS...: what the table prints goes to a log, which is shown when it fails. Two
# tables run at a time, so rows of the others than Table 1 have no process of their own.
table() {
  local log=$folder/$1 started=$SECONDS
  "$python" -m experiments.table --flagfile="flags/tables/table$2.cfg" --scale=smoke \
    --runs_dir="$folder/runs" --data_dir="$folder/tfds" \
    $([ "$2" = 1 ] || echo --jobs=1) "${@:3}" >"$log" 2>&1 \
    || { cat "$log"; exit 1; }
  echo "table ${*:2}: $((SECONDS - started)) s"
}

# The rows of the whole table that a log ends with, and how many of them have all numbers.
rows_of() { tac "$folder/$1" | sed -n '/^| /,/^$/p' | sed '/^$/q' | tac | grep '^| [^-M]'; }
complete_rows() {
  awk -F'|' '/^\| Model/ {for (i = 3; i < NF; i++) if ($i ~ /: ours/) ours[i]; n = 0; next}
    /^\| [^-]/ {n++; for (i in ours) if ($i ~ /–/) {n--; break}} END {print n}' "$folder/$1"
}

prepare() {
  local source
  source=$("$python" -m tests.data_factory --dataset="$1" --out="$folder/made" 2>/dev/null)
  "$python" -m experiments.prepare_data --dataset="$1" --source="$source" --data_dir="$folder/tfds"
}

# Two at a time. Tables 3 to 5 share their models; those that Table 3 has not come from the side.
prepare tiny_imagenet
(
  prepare cifar10
  table first2 2
  table first1 1 --strong --threads=1
  table some4 4 --only=plain_alp,at50,at50_alp,at100
) &
table first3 3
grep -q 'fine-tuned: expected --init_from' "$folder/first3"
wait $!
# With a model to start from, the fine-tuned row is made too.
table first4 4 --init_from="$folder/runs/smoke/tiny_imagenet/plain"
table first5 5

# Asked again, a table is there at once and the same, and complete.
declare -A count=([1]=8 [2]=8 [3]=9 [4]=13 [5]=13)
for number in 1 2 3 4 5; do
  table "again$number" $number --show $([ $number = 1 ] && echo --strong)
  sed -n '/^| Model/,$p' "$folder/again$number"
  [ $number = 3 ] || diff <(rows_of "first$number") <(rows_of "again$number")
  [ "$(complete_rows "again$number")" -eq "${count[$number]}" ]
done
# On a Ray cluster of this machine it is the same, bit for bit.
if "$python" -c 'import ray' 2>/dev/null; then
  table ray1 1 --strong --ray=local --runs_dir="$folder/ray"
  "$python" -m tests.same_results "$folder/ray/smoke" "$folder/runs/smoke"
else
  echo "not compared: a Ray cluster (the extra [cluster] is not installed)"
fi
echo "smoke: $SECONDS s"
