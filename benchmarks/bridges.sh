#!/usr/bin/env bash
# The tables of bridges in docs/results.md, from nothing: six trainings of 9 to 25 minutes on one core each, with one
# network and the same data, two distillations, all multi-step methods on them, and the theory of each. Two to three hours
# on 2 cores; finished runs are skipped. ROOT is the folder of the packages of recordings (docs/recordings.md); without
# it the sample is used.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
speech=datasets/vbd

train() { # name, model, module, steps, options...
  grep -q '"finished": true' outputs/$1/run.json 2>/dev/null && return
  OMP_NUM_THREADS=1 $python train.py experiment=speech_denoising model=$2 module=$3 data.root=$speech \
    data.batch_size=4 data.limit_valid=24 data.valid_seconds=4 data.num_workers=0 trainer.max_steps=$4 name=$1 ckpt=last \
    trainer.enable_progress_bar=false callbacks.progress=null callbacks.multi_step=null "${@:5}"
}

compare() { # name, options...
  grep -q '"finished": true' outputs/compare_$1/run.json 2>/dev/null && return
  $python train.py experiment=bridge_comparison data.root=$speech data.num_workers=0 \
    separator=outputs/$1/checkpoints/last.ckpt evaluation.items=16 name=compare_$1 ckpt=last "${@:2}"
}

theory() { # name, options...
  grep -q '"finished": true' outputs/theory_$1/run.json 2>/dev/null && return
  $python train.py experiment=bridge_theory data.root=$speech data.num_workers=0 data.test_seconds=2 \
    evaluation.items=16 evaluation.blind=dnsmos_ovrl evaluation.bridge=outputs/b_wave/checkpoints/last.ckpt \
    separator=${SEPARATOR:-outputs/$1/checkpoints/last.ckpt} name=theory_$1 ckpt=last "${@:2}"
}

test -f $speech/recordings.jsonl ||
  $python -m encore.data.recordings voicebank_demand $speech --train 1200 --valid 40 --test 60 --seed 0 ${ROOT:+--root $ROOT}

plain="module.mixing.linear_path=0 module.mixing.estimate_path=0"
# two at a time, one core each
train b_sb bridge_bsrnn_speech bridge 1200 $plain &
train p_mixed bsrnn_speech separation 1200 &
wait
brownian="model/bridge=brownian model.bridge.g=0.5 model.domain=waveform module/loss=snr_spectral"
train b_wave bridge_bsrnn_speech bridge 1200 $plain $brownian &
train p_plain bsrnn_speech separation 1200 $plain &
wait
# the Schroedinger bridge with what is known of its states beforehand: their second moments
moments=$(PYTHONPATH=benchmarks $python - $speech outputs/b_sb/checkpoints/last.ckpt <<'END'
import sys

from shared import corpus_items

from encore.models.checkpoint import load_checkpoint

bridge, sums = load_checkpoint(sys.argv[2]), []
for mixture, source in corpus_items(sys.argv[1], "train", 200, 16000):
    x, s = (bridge.encode(own[:, None], bridge.level(mixture)) for own in (mixture, source))
    sums.append([float(value.real.mean()) for value in (s * s.conj(), x * x.conj(), s * x.conj())])
print("source: {:.4f}, mixture: {:.4f}, covariance: {:.4f}".format(*(sum(own) / len(sums) for own in zip(*sums))))
END
)
linear="{_target_: encore.models.denoisers.preconditioning.LinearEstimate, $moments}"
train b_pre bridge_bsrnn_speech bridge 1200 $plain "model.preconditioning=$linear"
# a step of the multi-step objective costs three: a third of the steps
train p_unrolled bsrnn_speech separation 400 module.mixing.linear_path=0.25 module.mixing.estimate_path=0 \
  module.mixing.unroll=2 module.mixing.ratio_beta=0.5
distil() { # name, teacher, options...
  train $1 bridge_bsrnn_speech bridge_consistency 600 $plain module.optimizer.lr=1e-3 \
    init=outputs/$2/checkpoints/last.ckpt module.teacher=outputs/$2/checkpoints/last.ckpt "${@:3}"
}
distil c_sb b_sb &
# not under the loss of the separators: an SNR pulls as hard where nothing is missing, and the network drifts away
distil c_wave b_wave ${brownian% module/loss=*} &
wait

search='{_target_: encore.inference.GridSearch, candidates: 10, include_estimate: true, steps: 5}'
oracle="{_target_: encore.inference.RefineOptions, guide: si_sdr, search: $search, with_ratio: true}"
ode='{_target_: encore.inference.BridgeSampler, steps: 5, path: ode, every_step: false}'
second='{_target_: encore.inference.BridgeSampler, steps: 5, path: ode2, every_step: false}'
for name in p_plain p_mixed p_unrolled; do compare $name; done
# the noise of the Brownian bridge: a sampler whose schedule is searched
noisy="${oracle%\}}, noise: 0.5}"
more=("evaluation.methods.conditioned_oracle=$oracle" "evaluation.methods.ode_5=$ode" "+evaluation.methods.second_5=$second")
for name in b_sb b_pre; do compare $name "${more[@]}"; done
compare b_wave "${more[@]}" "+evaluation.methods.conditioned_noisy=$noisy"
again='{_target_: encore.inference.BridgeSampler, path: consistency, every_step: false, steps: '
for name in c_sb c_wave; do
  compare $name evaluation.methods.bridge_10=null evaluation.methods.bridge_30=null \
    "+evaluation.methods.consistency_2=$again 2}" "+evaluation.methods.consistency_4=$again 4}"
done
$python benchmarks/tables.py $(printf "outputs/compare_%s " p_plain p_mixed p_unrolled b_sb b_pre b_wave c_sb c_wave) \
  --rows run column --cells mean calls
for name in p_plain p_mixed p_unrolled b_wave b_sb; do theory $name; done
SEPARATOR=models/shipped/speech.safetensors theory shipped
