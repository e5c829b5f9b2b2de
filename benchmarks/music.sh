#!/usr/bin/env bash
# The music tables of docs/results.md, from nothing: composed songs, six separators of 20 minutes each, every way to refine.
# About three hours on 2 cores; what is done is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
songs=datasets/songs

train() { # name, model, steps, options...
  grep -q '"finished": true' outputs/$1/run.json 2>/dev/null && return
  OMP_NUM_THREADS=1 $python train.py experiment=music_separation model=$2 data.root=$songs data.sample_rate=22050 \
    data.train.valid_songs=4 data.segment_seconds=4 data.batch_size=4 data.epoch_size=400 data.num_workers=0 \
    data.valid_seconds=12 trainer.max_steps=$3 name=$1 ckpt=last trainer.enable_progress_bar=false \
    callbacks.progress=null "${@:4}"
}

evaluate() { # name, options...
  grep -q '"finished": true' outputs/progressive_$1/run.json 2>/dev/null && return
  $python train.py experiment=progressive_musdb data.root=$songs separator=outputs/music_$1/checkpoints/last.ckpt \
    data.test_seconds=12 data.num_workers=0 evaluation.items=6 name=progressive_$1 ckpt=last "${@:2}"
}

test -f $songs/songs.jsonl ||
  $python -m encore.synthetic_corpora musdb18_hq $songs --train 60 --test 8 --seconds 60 --sample-rate 22050 --seed 0

# two at a time, one core each
train music_unet spectrogram_unet_tiny 600 &
# it maps spectra without masks, so it needs many steps, of one 3 s mixture each
train music_hdemucs hdemucs_tiny 1400 module/loss=snr_spectral data.segment_seconds=3 data.batch_size=1 \
  module.mixing.remix=false &
wait
train music_dttnet dttnet_tiny 600 &
train music_conv_tasnet conv_tasnet_tiny 500 model.options.kernel_size=64 model.options.stride=32 &
wait
train music_unet_linear spectrogram_unet_tiny 600 module.mixing.linear_path=0.5 &
train music_unet_estimate spectrogram_unet_tiny 600 module.mixing.linear_path=0.25 module.mixing.estimate_path=0.25 &
wait

level="evaluation.methods.own_level=null" # these do not standardise
few="evaluation.methods.wiener=null evaluation.methods.wiener_single=null evaluation.methods.state_form=null
  evaluation.methods.noise=null evaluation.methods.disjointness=null evaluation.methods.remix_agreement=null
  evaluation.betas=[] evaluation.methods.adaptive.search.steps=3"
evaluate unet $level evaluation.methods.adaptive.search.steps=5 evaluation.methods.disjointness.search.steps=2 \
  evaluation.methods.remix_agreement.search.steps=2
for name in unet_estimate unet_linear dttnet; do evaluate $name $level $few; done
evaluate hdemucs $few
evaluate conv_tasnet $level $few evaluation.items=3

compare() { # names...
  $python benchmarks/tables.py $(printf "outputs/progressive_%s " "$@") --rows source run --metrics si_sdr \
    --columns one_step fixed adaptive_oracle --cells best gain calls
}
compare unet unet_linear unet_estimate dttnet hdemucs
compare unet unet_estimate dttnet hdemucs conv_tasnet
