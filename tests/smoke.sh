#!/usr/bin/env bash
# The tables at smoke scale, end to end, in a folder of its own, from embedded and generated data.
#   tests/smoke.sh .venv/bin/python       Table 1 whole, of the others the rows that differ in kind
#   tests/smoke.sh .venv/bin/python all   every row of all five tables
set -euo pipefail
python=$1
rows=${2:-few}
folder=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$folder"' EXIT

# table LOG NUMBER FLAGS...: what the table prints goes to a log, which is shown when it fails.
table() {
  local log=$folder/$1 started=$SECONDS
  "$python" -m experiments.table --flagfile="flags/tables/table$2.cfg" --scale=smoke \
    --runs_dir="$folder/runs" --data_dir="$folder/tfds" "${@:3}" >"$log" 2>&1 \
    || { cat "$log"; exit 1; }
  echo "table ${*:2}: $((SECONDS - started)) s"
}

# The rows of the whole table that a log ends with, and those among them that have all numbers.
rows_of() { tac "$folder/$1" | sed -n '/^| /,/^$/p' | sed '/^$/q' | tac | grep '^| [^-M]'; }
complete_rows() {
  rows_of "$1" | awk -F'|' '{for (i = 3; i < NF; i += 2) if ($i ~ /–/) next; print}' | wc -l
}

for dataset in cifar10 tiny_imagenet; do
  source=$("$python" -m tests.data_factory --dataset=$dataset --out="$folder/made" 2>/dev/null)
  "$python" -m experiments.prepare_data --dataset=$dataset --source="$source" \
    --data_dir="$folder/tfds"
done

# Rows to make of Tables 2 to 5, and how many of each table are complete then.
declare -A only=([2]=plain,at50_alp [3]=plain,at50_ll_alp_ll,finetuned_plain_alp_ll [4]=plain [5]=plain)
declare -A count=([1]=8 [2]=2 [3]=2 [4]=2 [5]=1)  # Table 4 has the columns of Table 3
if [ "$rows" = all ]; then
  only=([2]= [3]= [4]= [5]=)
  count=([1]=8 [2]=8 [3]=8 [4]=12 [5]=12)  # all but the fine-tuned row
fi

# Two at a time. Tables 3 to 5 share their models, so they follow each other.
(
  table first1 1 --strong
  table first2 2 --only="${only[2]}"
) &
table first3 3 --only="${only[3]}"
grep -q 'fine-tuned, from --init_from' "$folder/first3"
table first4 4 --only="${only[4]}"
table first5 5 --only="${only[5]}"
wait $!

# Asked again, a table is there at once and the same, and complete where it was made.
for number in 1 2 3 4 5; do
  table "again$number" $number --show $([ $number = 1 ] && echo --strong)
  sed -n '/^| Model/,$p' "$folder/again$number"
  diff <(rows_of "first$number") <(rows_of "again$number")
  [ "$(complete_rows "again$number")" -eq "${count[$number]}" ]
done
echo "smoke: $SECONDS s"
