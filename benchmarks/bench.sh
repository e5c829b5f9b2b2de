#!/usr/bin/env bash
# What refinement costs, at a small size: about 8 minutes on two idle cores. All figures are ratios within one run.
# The full tables of docs/results.md: see the commands there.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=datasets/bench

echo "## refine against the published loop, written plainly (T = 5, K = 10)"
$python benchmarks/speed.py refinement --items "${ITEMS:-2}" --steps 5
echo
echo "## mixed precision and compiling"
$python benchmarks/speed.py options --batches 1 --repeats 7
echo
echo "## metrics"
$python benchmarks/speed.py metrics --repeats 3
echo
echo "## quality against separator calls"
test -f $data/recordings.jsonl || $python -m encore.data.recordings voicebank_demand $data --valid 8 --test 8 --seed 3
$python benchmarks/search_front.py --data $data -o outputs/bench --guides si_sdr --items 6 --valid-items 6 \
  --fitted-steps 8 --leave-out slopes
echo "drawn in outputs/bench/front_si_sdr.png"
echo
echo "## memory of a long file"
$python benchmarks/speed.py long_file --minutes 4
