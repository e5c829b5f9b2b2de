#!/usr/bin/env bash
# The tables of one step on recordings in docs/results.md, and the training of the denoiser that comes with Encore; ROOT is the
# folder of the packages (docs/recordings.md). On one core about 2 hours of training and 10 minutes for each separator.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
results=outputs/recordings
once='{si_sdr: null, pesq: null, dnsmos_ovrl: null, fixed: null}'

write() { [ -f "datasets/$2/recordings.jsonl" ] || $python -m encore.data.recordings "$1" "datasets/$2" --root "$ROOT" "${@:3}"; }
write pools pools
write voicebank_demand test16 --valid 0
write voicebank_demand test48 --valid 0 --sample-rate 48000

# goes on where it was interrupted
$python train.py experiment=recorded_denoising data.root=datasets/pools name=recordings/training trainer.max_steps=5000 \
  data.limit_valid=60 data.num_workers=0 threads=1 ckpt=last callbacks.multi_step=null

score() { # rate, metrics, items, separators
  for separator in "${@:4}"; do
    $python train.py experiment=corpus_scores "separator='$separator?sample_rate=$1'" "data.root=datasets/test$(($1 / 1000))" \
      "data.sample_rate=$1" "name=recordings/$(($1 / 1000))_${separator%%:*}" "evaluation.methods=$once" \
      evaluation.relative_delta=false "evaluation.metrics=$2" "evaluation.items=$3" ckpt=last
  done
  $python benchmarks/tables.py "$results/$(($1 / 1000))"_* --rows run --cells mean
}
score 16000 '[si_sdr,pesq,estoi,dnsmos_ovrl,distillmos]' null deepfilternet: nsnet2: convtasnet: dtln: gtcrn: shipped:speech
score 48000 '[si_sdr,pesq,estoi,dnsmos_ovrl]' 100 deepfilternet: nsnet2:48k rnnoise: convtasnet: shipped:speech
