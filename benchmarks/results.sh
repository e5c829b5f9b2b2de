#!/usr/bin/env bash
# The tables of docs/results.md, from nothing: corpus, trainings, evaluation. Every stage is skipped where its
# result exists, so an interrupted run goes on (trainings from their last checkpoint).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=datasets/vbd results=outputs/results
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

train() { # name, steps, options...
  local name=$1 steps=$2
  grep -q '"finished": true' outputs/$name/run.json 2>/dev/null && return
  $python train.py experiment=speech_denoising model=bsrnn_speech data.root=$data name=$name ckpt=last \
    trainer.max_steps=$steps callbacks.multi_step=null data.num_workers=0 data.epoch_size=2400 data.limit_valid=20 \
    trainer.enable_progress_bar=false callbacks.progress=null "${@:3}"
}

evaluate() { # name, options...
  $python benchmarks/speech_denoising.py outputs/$1/checkpoints/last.ckpt --data $data -o $results/$1 "${@:2}"
}

test -f $data/manifest.jsonl ||
  $python -m data.synthesis voicebank_demand $data --train 1200 --test 60 --sample-rate 16000 --seed 0

# the shipped separator
train speech_denoiser ${STEPS:-3000}
evaluate speech_denoiser
# the same separator where it was not trained to be: every utterance in a room
test -f ${data}_room/manifest.jsonl ||
  $python -m data.synthesis voicebank_demand ${data}_room --train 2 --test 30 --sample-rate 16000 --seed 1 --room 1
data=${data}_room evaluate speech_denoiser -o $results/speech_denoiser_room --guides si_sdr dnsmos_ovrl fixed

# what data mixing does to refinement: runs of equal length, two at a time on two cores
seeds=${SEEDS:-0}
for seed in $seeds; do
  train path_none_seed$seed ${ABLATION_STEPS:-800} seed=$seed module.mixing.linear_path=0 &
  train path_linear_seed$seed ${ABLATION_STEPS:-800} seed=$seed module.mixing.linear_path=0.5 &
  wait
  train path_estimate_seed$seed ${ABLATION_STEPS:-800} seed=$seed \
    module.mixing.linear_path=0.25 module.mixing.estimate_path=0.25
  for path in none linear estimate; do
    evaluate path_${path}_seed$seed --guides si_sdr fixed dnsmos_ovrl \
      --metrics si_sdr pesq stoi dnsmos_ovrl --items 30 --blind-items 15
  done
done
$python benchmarks/mixing_table.py $results/path_*
$python report.py $results/speech_denoiser $results/path_* -o $results/report
