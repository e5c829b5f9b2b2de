#!/usr/bin/env bash
# Everything about source priors in docs/results.md, from nothing; what is done is skipped.
#   benchmarks/priors.sh         tiny priors, 1 s at 8 kHz, 12 classes of sound, 8 mixtures a task: many hours on 2 cores
#   benchmarks/priors.sh large   the published sizes: 16 kHz, 4 s, 400 mixtures a task; for a GPU
# ROOT is the folder of the packages of recordings (docs/recordings.md): a voice of the sample has ten at most.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
size=${1:-tiny}
classes="Acoustic_guitar Applause Bass_drum Cowbell Flute Glockenspiel Gong Keys_jangling Knock Snare_drum Telephone Trumpet"

if [ "$size" = large ]; then
  # all classes that the synthetic corpus has; the real one has 41: data.classes as configured
  classes=$(cut -d, -f2 datasets/fsd/FSDKaggle2018.meta/train_post_competition.csv 2>/dev/null | tail -n +2 | sort -u | tr '\n' ' ')
  rate=16000 seconds=4 count=400 more=400 device=cuda
  training="data.batch_size=16 data.num_workers=8 trainer.max_steps=200000 trainer.precision=bf16-mixed"
  supervised="model=conv_tasnet_large data.batch_size=16 data.num_workers=8 trainer.max_steps=100000 module.optimizer.lr=1e-3"
  written=10000
else
  rate=8000 seconds=1 count=8 more=24 device=cpu  # mixtures of every variant, and of those with close results
  # at any level, for the noise of noisy levels is too fine a target; sampled at the published ones
  training="data.batch_size=8 data.num_workers=0 data.epoch_size=1600 data.limit_valid=40 trainer.max_steps=2400
    module.optimizer.lr=2e-3 callbacks.averaging.decay=0.995 model/diffusion=continuous"
  supervised="model=conv_tasnet_small data.batch_size=8 data.num_workers=0 trainer.max_steps=2400 module.optimizer.lr=2e-3"
  written=1600
fi

test -f datasets/vctk/recordings.jsonl ||
  $python -m encore.data.recordings vctk datasets/vctk --root ${ROOT:?is the folder of packages of recordings, see docs/recordings.md}
tested=$(grep -c '  test  ' datasets/vctk/speaker-info.txt)
test -f datasets/fsd/clips.jsonl ||
  $python -m encore.synthetic_corpora fsdkaggle2018 datasets/fsd --train 80 --test 15 --sample-rate 16000

train() { # name, options...
  grep -q '"finished": true' outputs/$1_$size/run.json 2>/dev/null && return
  OMP_NUM_THREADS=1 $python train.py name=$1_$size ckpt=last data.sample_rate=$rate data.segment_seconds=$seconds "${@:2}"
}
mix() { # task, folder, options...
  test -d $2 || $python -m encore.data.mixture_recipes $1 $2 --speech datasets/vctk --test-speakers $tested \
    --sounds datasets/fsd --classes $classes --seconds $seconds --sample-rate $rate "${@:3}"
}
# separators of mixtures of the same recordings, as many as the priors are trained on segments
supervise() { # task, sources, options...
  for split in train:$written valid:40; do
    mix $1 datasets/tasks_$size/$1_${split%:*} --split ${split%:*} --count ${split#*:}
  done
  train supervised_$1 data=manifest data.train.path=datasets/tasks_$size/$1_train/manifest.jsonl data.test=null \
    data.valid.path=datasets/tasks_$size/$1_valid/manifest.jsonl data.root=datasets/tasks_$size "data.sources=[$2]" module.mixing.snr_db=null $supervised "${@:3}"
}
train prior_speech experiment=prior_speech model=prior_$size data.root=datasets/vctk data.train.test_speakers=$tested $training &
train prior_sound experiment=prior_sound model=prior_$size data.root=datasets/fsd "data.classes=[$(echo $classes | tr ' ' ,)]" $training &
wait
supervise speech_sound speech,sound &
supervise 2speech speaker1,speaker2 module/loss=permutation_invariant &
wait

solve() { # task, options...
  $python benchmarks/prior_solvers.py datasets/tasks_$size/$1 --device $device --mixtures $count \
    --speech outputs/prior_speech_$size/checkpoints/last.ckpt --sound outputs/prior_sound_$size/checkpoints/last.ckpt \
    --separator outputs/supervised_$1_$size/checkpoints/last.ckpt --out outputs/priors_$size/$1.parquet "${@:2}"
}
for task in speech_sound 2speech speech_2sounds 2sounds 3sounds; do
  mix $task datasets/tasks_$size/$task --count $more
done
solve speech_sound
solve 2speech
solve speech_sound --groups grid
solve speech_sound --groups beyond
solve speech_sound --mixtures $more --variants hybrid "50 levels" "start in noise" "start 150, from there" "start 100, from there"
solve 2speech --variants hybrid "50 levels, logarithmic" "50 log levels, mean of 4" "supervised separator"
for task in speech_2sounds 2sounds 3sounds; do solve $task --variants hybrid projection; done
solve 2sounds --variants hybrid "50 levels" "50 levels, class guidance 1" "50 levels, class guidance 3" "50 levels, no class"
