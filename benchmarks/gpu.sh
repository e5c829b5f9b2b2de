#!/usr/bin/env bash
# What a GPU makes of refinement: the published loop written plainly on the same GPU, mixed precision and compiling,
# and a profile. About 10 minutes on one GPU; prints tables, writes a trace. Extra arguments go to every comparison,
# such as --separator outputs/RUN/checkpoints/last.ckpt.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=${OUT:-outputs/gpu}
mkdir -p $out

echo "## refine against the published loop on one GPU (T = 20, K = 10)"
$python benchmarks/speed.py refinement --device cuda --workers 1 --items 8 "$@"
echo
echo "## options"
$python benchmarks/speed.py options --device cuda --batches 1 10 64
echo
echo "## where the time goes"
$python benchmarks/speed.py refinement --device cuda --workers 1 --guides si_sdr --trace-file $out/trace.json "$@"
