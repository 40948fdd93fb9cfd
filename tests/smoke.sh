#!/usr/bin/env bash
# Every table at smoke scale, end to end, in a folder of its own, from embedded and generated data.
#   tests/smoke.sh .venv/bin/python
set -euo pipefail
python=$1
folder=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null; rm -rf "$folder"' EXIT
tiny=$folder/runs/smoke/tiny_imagenet

# table LOG NUMBER FLAGS...: what the table prints goes to a log, which is shown when it fails.
table() {
  local log=$folder/$1 started=$SECONDS
  "$python" -m experiments.table --flagfile="flags/tables/table$2.cfg" --scale=smoke \
    --runs_dir="$folder/runs" --data_dir="$folder/tfds" "${@:3}" >"$log" 2>&1 \
    || { cat "$log"; exit 1; }
  echo "table ${*:2}: $((SECONDS - started)) s"
}

# The last table in a log, and the same without the paper's numbers, of which all must be there.
rows() { tac "$folder/$1" | sed -n '/^| /,/^$/p' | sed '/^$/q' | tac | grep '^| [^-M]'; }
complete() {
  if rows "$1" | awk -F'|' '{for (i = 3; i < NF; i += 2) print $i}' | grep -n –; then
    echo "a number is missing"; cat "$folder/$1"; exit 1
  fi
}

for dataset in cifar10 tiny_imagenet; do
  source=$("$python" -m tests.data_factory --dataset=$dataset --out="$folder/made" 2>/dev/null)
  "$python" -m experiments.prepare_data --dataset=$dataset --source="$source" \
    --data_dir="$folder/tfds"
done

# Two at a time; the rows that only Table 4 has, and the fine-tuned one, beside those of Table 3.
(
  table first1 1 --strong
  table first2 2
  table only4 4 --only=plain_alp,at50,at50_alp,at100
) &
table first3 3
grep -q 'fine-tuned, from --init_from' "$folder/first3"
[ "$(rows first3 | grep -c '| – |')" -eq 1 ]
table tuned 4 --only=finetuned_plain_alp_ll --init_from="$tiny/plain"
wait $!
table half5 5 --only=plain,clp,lsq,plain_alp,plain_alp_ll,finetuned_plain_alp_ll &
table other5 5 --only=at50,at50_alp,at50_ll,at50_ll_alp_ll,at100,at100_ll,at100_ll_alp_ll
wait $!

# Asked again, a table is there at once, complete and the same.
for number in 1 2 3 4 5; do
  table "again$number" $number $([ $number = 1 ] && echo --strong)
  complete "again$number"
  sed -n '/^| Model/,$p' "$folder/again$number"
done
diff <(rows first1) <(rows again1)
diff <(rows first2) <(rows again2)
for count in 1:8 2:8 3:9 4:13 5:13; do
  [ "$(rows "again${count%:*}" | wc -l)" -eq "${count#*:}" ]
done
