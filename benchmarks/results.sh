#!/usr/bin/env bash
# The tables of docs/results.md, from nothing: corpus, trainings, evaluation. Every stage is skipped where its
# result exists, so an interrupted run goes on (trainings from their last checkpoint). ROOT is the folder of the packages
# of recordings (docs/recordings.md); without it the sample is used.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=datasets/vbd results=outputs/results
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

train() { # name, experiment, steps, options...
  local name=$1 experiment=$2 steps=$3
  grep -q '"finished": true' outputs/$name/run.json 2>/dev/null && return
  $python train.py experiment=$experiment model=${MODEL:-bsrnn_speech} data.root=$data name=$name ckpt=last \
    trainer.max_steps=$steps callbacks.multi_step=null data.num_workers=0 data.epoch_size=2400 data.limit_valid=20 \
    trainer.enable_progress_bar=false callbacks.progress=null "${@:4}"
}

evaluate() { # separator, corpus, name of the result, options...
  local out=$results/$3 options=("${@:4}")
  grep -q '"finished": true' $out/run.json 2>/dev/null && return
  $python train.py experiment=corpus_scores separator=$(last $1) data.root=$2 data.num_workers=0 name=$3 \
    hydra.run.dir=$out ckpt=last "${options[@]/#/evaluation.}"
}

corpus() { # folder, options...
  test -f $1/recordings.jsonl || $python -m encore.data.recordings voicebank_demand $1 ${ROOT:+--root $ROOT} "${@:2}"
}

last() {
  echo outputs/$1/checkpoints/last.ckpt
}

no_pesq="methods.pesq=null"
only_si_sdr="$no_pesq methods.dnsmos_ovrl=null metrics=[si_sdr]"
few_metrics="$no_pesq metrics=[si_sdr,pesq,stoi,dnsmos_ovrl]"

corpus $data --train 1200 --valid 40 --test 60 --seed 0
corpus ${data}_room --valid 0 --test 30 --seed 1 --room 1

# a band-split RNN: one pass, then two stages with the multi-step objective, then two with the best of two blends
train speech_denoiser_stage1 speech_denoising 2500
train speech_denoiser_stage2 speech_denoising_unrolled 700 init=$(last speech_denoiser_stage1)
train speech_denoiser_stage3 speech_denoising_unrolled 900 init=$(last speech_denoiser_stage2) module.optimizer.lr=3e-3
train speech_denoiser_stage4 speech_denoising_guided 300 init=$(last speech_denoiser_stage3)
train speech_denoiser speech_denoising_guided 400 init=$(last speech_denoiser_stage4)
# gains more from refinement, and is worse before and after it
train speech_denoiser_refining speech_denoising_guided 280 init=$(last speech_denoiser) module.mixing.candidates=4 \
  module.mixing.first_weight=0.1
evaluate speech_denoiser_refining $data speech_denoiser_refining $only_si_sdr
evaluate speech_denoiser $data speech_denoiser
evaluate speech_denoiser ${data}_room speech_denoiser_room $no_pesq

# a second separator, and three sizes with equal data: what refinement costs and gains with each
MODEL=conv_tasnet_tiny train conv_tasnet_tiny speech_denoising 500 module.optimizer.lr=2e-3 \
  module.scheduler.steps=1200
for size in 16x2 24x3 32x4; do
  train size_$size speech_denoising 600 model.features=${size%x*} model.layers=${size#*x}
  evaluate size_$size $data size_$size $few_metrics items=30
done
$python report.py $results/size_* -o $results/sizes
front="$python benchmarks/search_front.py --data $data --leave-out slopes --fitted-steps 8"
$front -o $results/front_speech_denoiser --separator $(last speech_denoiser) --guides si_sdr --items 30
$front -o $results/front_dnsmos --separator $(last speech_denoiser) --guides dnsmos_ovrl --items 16
$front -o $results/front_conv_tasnet_tiny --separator $(last conv_tasnet_tiny) --guides si_sdr --items 30 --valid-items 8
speed="$python benchmarks/speed.py refinement --data $data --separator"
$speed $(last speech_denoiser) --items 12 --guides si_sdr
$speed $(last speech_denoiser) --items 3 --guides pesq
$speed $(last speech_denoiser) --items 1 --guides dnsmos_ovrl
$speed $(last conv_tasnet_tiny) --items 6 --guides si_sdr
$python benchmarks/speed.py options $(last speech_denoiser) $(last conv_tasnet_tiny)
$python benchmarks/speed.py metrics --repeats 3
$python benchmarks/speed.py long_file

# what data mixing does to refinement: runs of equal length, two at a time on two cores
seeds=${SEEDS:-0}
for seed in $seeds; do
  plain="seed=$seed module.mixing.speed=null module.mixing.equaliser_db=0"
  steps=${ABLATION_STEPS:-800}
  train path_none_seed$seed speech_denoising $steps $plain module.mixing.linear_path=0 module.mixing.estimate_path=0 &
  train path_linear_seed$seed speech_denoising $steps $plain module.mixing.linear_path=0.5 \
    module.mixing.estimate_path=0 &
  wait
  train path_estimate_seed$seed speech_denoising $steps $plain
  for path in none linear estimate; do
    evaluate path_${path}_seed$seed $data path_${path}_seed$seed $few_metrics items=30
  done
done
$python benchmarks/tables.py $results/path_* --metrics si_sdr relative_delta dnsmos_ovrl --cells gain best
$python report.py $results/speech_denoiser $results/path_* -o $results/report
