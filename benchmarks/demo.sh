#!/usr/bin/env bash
# The main job in small, 5 to 7 minutes on 2 cores: a corpus, a training with multi-step validation, files
# refined by the default separator, one report. Every line is a command that you could type.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=datasets/demo run=outputs/demo
rm -rf $run

step() { printf '\n== %s\n   %s\n' "$1" "${*:2}"; "${@:2}"; }

step "1/4 write a small corpus of the recordings that come with Encore, test voices and noises unseen in training" \
  $python -m encore.data.recordings voicebank_demand $data --train 240 --valid 12 --test 8 --seed 1 --overwrite

step "2/4 train the smallest band-split RNN, then validate it once and in several steps" \
  $python train.py experiment=speech_denoising model=bsrnn_xtiny data.root=$data name=demo \
  trainer.max_steps=160 data.epoch_size=640 data.limit_valid=6 data.num_workers=0

step "3/4 refine a folder of unseen noisy files with the default separator, guided by DNSMOS" \
  $python infer.py $data/test/noisy -o $run/files --reference $data/test/clean

step "4/4 put everything side by side" \
  $python report.py $run $run/files -o $run/report

printf '\nOne step beside several, validation of the trained model (oracle and blind guides):\n\n'
cat $run/multi_step/scores.md
cat <<END

Look at
  $run/report/report.html     the comparison, one page
  $run/multi_step/            curves, spectrograms, and audio of the items that gained most and least
  $run/files/                 the refined files
END
