"""Wrong settings of inference, models and metrics are errors of one line that names the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from bridge_toys import bridge_config, toy_bridge
from prior_toys import problem, toy_prior
from test_prior_separation import separator as prior_separator
from torch import Generator, Tensor, nn

from encore.common.dsp import resample
from encore.inference import (
    AnnealedGridSearch,
    BatchSize,
    BrentSearch,
    BridgeSampler,
    CoarseToFine,
    EarlyStopping,
    FixedListSearch,
    GoldenSection,
    GradientLineSearch,
    GreedySearch,
    GridSearch,
    LocalSearch,
    MaxEvaluations,
    NoisyPath,
    Wiener,
    batched,
    linear_schedule,
    linear_state_schedule,
    overlap_add,
    refine_fixed,
    shift_average,
)
from encore.inference.bridges import bridge_grid, time_grid, white_noise
from encore.inference.chunking import segment_bounds
from encore.inference.fitting import fit_schedule
from encore.inference.guidance import LossGuidance, hybrid
from encore.inference.permutation import matching_order
from encore.inference.posterior import Start
from encore.inference.posterior_flow import SourceFlow
from encore.inference.probing import layer_statistics
from encore.inference.reconstruction import ReconstructionLoss
from encore.inference.red_diff import RedDiff
from encore.inference.source_priors import PriorBank, SourcePrior
from encore.inference.theory import worst_gain
from encore.metrics import (
    Metric,
    MetricPanel,
    dnsmos,
    estoi,
    get_metric,
    guarded,
    joint,
    oracle,
    pesq,
    sdr,
    si_sdr,
    snr,
    stoi,
    usdr,
)
from encore.metrics.music import bss_eval, csdr
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second
from encore.models.denoisers.preconditioning import LinearEstimate, NoisePrediction
from encore.models.denoisers.tf_attention_unet import TFAttentionUNet
from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.processes.bridge import (
    BBED,
    DDBMVE,
    DDBMVP,
    I2SB,
    OUVE,
    BrownianBridge,
    LinearBridge,
    Scaled,
    SchroedingerVE,
)
from encore.models.processes.diffusion import ContinuousDiffusion, DiscreteDiffusion, NoiseLevels
from encore.models.wrappers import PerSource

NAN, NONE = math.nan, torch.ones(9)
Rows = list[tuple[Callable[[], object], str]]


def one(x: Tensor) -> Tensor:
    return x[:, None]


class Plain(nn.Module):
    """A separator that was not trained as a bridge."""

    def __init__(self, source: str = "a", rate: int = 16000) -> None:
        super().__init__()
        self.sources, self.sample_rate, self.channels = (source,), rate, 1

    def forward(self, x: Tensor) -> Tensor:
        return x[:, None]


class Idle(nn.Module):
    """A network none of whose layers is run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x


def sampled(**options: object) -> object:
    return BridgeSampler(**options)(Plain(), torch.ones(1, 1, 100), generator=Generator())


PESQ, SI_SDR_48K = get_metric("pesq", sample_rate=16000), get_metric("si_sdr", sample_rate=48000)
PEAK = Metric(name="peak", function=lambda estimates: estimates.abs().amax((1, 2)), sample_rate=16000)
NEAR = oracle(si_sdr, torch.ones(3, 2, 2, 9))
unet = partial(TFAttentionUNet, widths=(8, 16, 8), depths=(1, 1, 1), window=62, heads=2)
csdr_16k = partial(csdr, sample_rate=16000)
stoi_16k, estoi_16k = partial(stoi, sample_rate=16000), partial(estoi, sample_rate=16000)
SEARCHES: Rows = [
    (lambda: GridSearch(0), "candidates=0"),
    (lambda: GridSearch(steps=-1), "steps=-1"),
    (lambda: GridSearch(steps=2.5), "steps=2.5"),
    (lambda: AnnealedGridSearch(-1), "candidates=-1"),
    (lambda: linear_schedule(0), "steps=0"),
    (lambda: linear_schedule(3, last=2.0), "last=2.0"),
    (lambda: linear_state_schedule(0), "steps=0"),
    (lambda: CoarseToFine(points=1), "points=1"),
    (lambda: CoarseToFine(rounds=0), "rounds=0"),
    (lambda: CoarseToFine(steps=-1), "steps=-1"),
    (lambda: GoldenSection(rounds=0), "rounds=0"),
    (lambda: GoldenSection(low=0.5, high=0.5), "low=0.5, high=0.5"),
    (lambda: GoldenSection(high=1.1), "high=1.1"),
    (lambda: GoldenSection(low=NAN), "low=nan"),
    (lambda: BrentSearch(first=1.5), "first=1.5"),
    (lambda: BrentSearch(width=0), "width=0"),
    (lambda: BrentSearch(width=0.6), "width=0.6"),
    (lambda: BrentSearch(calls=1), "calls=1"),
    (lambda: BrentSearch(width=0.2, tolerance=0.11), "tolerance=0.11: .* width / 2 = 0.1"),
    (lambda: BrentSearch(enough=0), "enough=0"),
    (lambda: GradientLineSearch(first=1.0), "first=1.0"),
    (lambda: GradientLineSearch(points=0), "points=0"),
    (lambda: GradientLineSearch(reach=1.1), "reach=1.1"),
    (lambda: GradientLineSearch(tolerance=-1), "tolerance=-1"),
    (lambda: GradientLineSearch(enough=NAN), "enough=nan"),
    (lambda: FixedListSearch(ratios=[]), r"ratios=\[\]"),
    (lambda: FixedListSearch(ratios=[0.5, NAN]), "ratios="),
    (lambda: FixedListSearch(ratios=[0.5], steps=-1), "steps=-1"),
    (lambda: GreedySearch(first=1.0), "first=1.0"),
    (lambda: GreedySearch(width=0), "width=0"),
    (lambda: GreedySearch(patience=0), "patience=0"),
    (lambda: LocalSearch(first=[]), r"first=\[\]"),
    (lambda: LocalSearch(first=[1.2]), r"first=\[1.2\]"),
    (lambda: LocalSearch(width=0.7), "width=0.7"),
    (lambda: LocalSearch(shrink=1), "shrink=1"),
    (lambda: LocalSearch(probes=-1), "probes=-1"),
    (lambda: EarlyStopping(LocalSearch(), 0), "minimum_gain=0"),
    (lambda: EarlyStopping(LocalSearch(), 0.1, patience=0), "patience=0"),
    (lambda: MaxEvaluations(GridSearch(2), 0), "evaluations=0"),
    (lambda: NoisyPath(-0.1), r"noise=-0\.1: must be 0 or more"),
]
SEPARATION: Rows = [
    *(
        (lambda r=ratios: refine_fixed(one, torch.ones(3, 1, 40), r), r"ratios=\[.*each in \[0, 1\]")
        for ratios in ([], [0.5, 1.5], [[0.5]], [NAN])
    ),
    (lambda: refine_fixed(one, torch.ones(3, 40), [0.5]), r"mixture has shape \(3, 40\)"),
    (lambda: refine_fixed(lambda x: x, torch.ones(3, 2, 40), [0.5]), r"separate returned shape \(3, 2, 40\)"),
    *(
        (
            lambda cut=cut: segment_bounds(100, segment=cut[0], overlap=cut[1], context=cut[2]),
            "segment={}, overlap={}, context={}".format(*cut),
        )
        for cut in ((0, 0, 0), (4, 4, 0), (4, -1, 0), (4, 1, -1), (10, 2, 4))
    ),
    (lambda: overlap_add(one, segment=10, overlap=1.0), "overlap=1"),
    (lambda: overlap_add(one, segment=10, overlap=0.5, context=3), "segment=10, overlap=5, context=3"),
    (lambda: overlap_add(one, segment=10, max_batch=0), "max_batch=0"),
    (lambda: overlap_add(lambda x: one(x)[..., 1:], segment=10)(torch.ones(1, 1, 30)), "9 samples for 10"),
    (lambda: shift_average(one, shifts=0, max_shift=10, generator=Generator()), "shifts=0, max_shift=10"),
    (lambda: shift_average(one, shifts=2, max_shift=-1, generator=Generator()), "shifts=2, max_shift=-1"),
    (lambda: BatchSize(0), "limit=0 and samples=None"),
    (lambda: BatchSize(samples=0), "limit=256 and samples=0"),
    (lambda: batched(one, workers=0), "workers=0"),
    (lambda: batched(one, 0), "size=0"),
    (lambda: Wiener(iterations=0), "iterations=0"),
    (lambda: Wiener(window=6), "window=6"),
    (lambda: Wiener(window=510), "window=510"),
    (
        lambda: matching_order(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 5)),
        r"\(1, 2, 1, 4\), the known signals \(1, 2, 1, 5\)",
    ),
    (
        lambda: worst_gain(torch.tanh, torch.ones(1, 1, 2), iterations=0, generator=Generator()),
        "iterations=0",
    ),
    (lambda: fit_schedule(one, [(NONE[None, None], si_sdr)], steps=1, ratios=[1.1]), r"ratios=\[1.1\]"),
    (lambda: fit_schedule(one, [(NONE[None, None], si_sdr)], steps=1, ratios=[]), r"ratios=\[\]"),
    (lambda: fit_schedule(one, [(NONE[None, None], si_sdr)], steps=0), "steps=0"),
    (lambda: PerSource([]), "per_source names no separator"),
    (lambda: PerSource([Plain(), Plain()]), "different names"),
    (lambda: PerSource([Plain(), Plain("b", rate=8000)]), r"sample_rate \[8000, 16000\]"),
    (lambda: resample(NONE, 8000, 16000, kernel="sinc"), "kernel='sinc': choose 'kaiser_best' or 'hann'"),
    (lambda: resample(NONE, 0, 16000), "from_rate=0, to_rate=16000: give positive rates"),
    (lambda: layer_statistics(Idle(), torch.ones(3, 4)), "no layer"),
]
BRIDGES: Rows = [
    (lambda: BrownianBridge(g=0), "g=0"),
    (lambda: SchroedingerVE(k=1), "k=1"),
    (lambda: SchroedingerVE(c=-1), "c=-1"),
    (lambda: I2SB(steps=3), "steps=3"),
    (lambda: DDBMVE(sigma_max=0), "sigma_max=0"),
    (lambda: DDBMVP(beta_d=-1), "beta_d=-1"),
    (lambda: BBED(theta=0), "theta=0"),
    (lambda: OUVE(sigma_max=0.05), "sigma_max=0.05"),
    (lambda: Scaled(LinearBridge(), 0), "scale=0"),
    (lambda: bridge_grid(BrownianBridge(), torch.tensor([0.5, 1.0])), "falling"),
    (lambda: bridge_grid(BrownianBridge(), torch.tensor([1.0])), "at least two"),
    (lambda: bridge_grid(BrownianBridge(), torch.tensor([1.5, 0.5])), r"\[0, 1\]"),
    (lambda: bridge_grid(BBED(), torch.tensor([1.0, 0.9995, 0.5])), "below 0.999"),
    (lambda: time_grid(0), "steps=0"),
    (lambda: white_noise(torch.ones(1, 4), None)(), "generator=None"),
    (lambda: sampled(steps=0), "steps=0"),
    (lambda: sampled(t_min=1.0), "t_min=1.0"),
    (lambda: sampled(path="x"), "path='x'"),
    (lambda: sampled(start="middle"), "start='middle'"),
    (lambda: sampled(start="mean", path="consistency"), "start='mean', path='consistency'"),
    (lambda: sampled(path="sde"), "path='sde': LinearBridge has no noise; choose endpoint or state"),
    (lambda: toy_bridge(domain="mel"), "domain='mel'"),
    (
        lambda: instantiate(
            bridge_config() | {"network": {"_target_": "encore.models.separators.bsrnn.BSRNN", "features": 4}}
        ),
        "network=BSRNN",
    ),
    (lambda: NoisePrediction()(BrownianBridge(), torch.tensor([0.5])), "BrownianBridge has no variance"),
    (lambda: instantiate({"_target_": "encore.models.processes.bridge.BBED"}), "it is no network"),
    (
        lambda: instantiate(bridge_config(bridge={"_target_": "encore.models.weights.read_safely"})),
        "not allowed",
    ),
    (lambda: LinearEstimate(0, 1, 0), "source=0"),
    (lambda: LinearEstimate(1, 1, 1.1), "covariance=1.1"),
    (lambda: LinearEstimate(1, -1, 0), "mixture=-1"),
    (lambda: TimeFilms([3], size=7), "size=7"),
]
PRIORS: Rows = [
    (lambda: LossGuidance(schedule=hybrid(), normalise="both"), "normalise='both'"),
    (lambda: hybrid(sharpness=0.0), r"sharpness=0\.0"),
    (lambda: SourceFlow(width=0.0), r"width=0\.0"),
    (lambda: RedDiff(rate=0.0), r"rate=0\.0"),
    (lambda: Start(kind="silence"), "kind='silence'"),
    (lambda: Start(at=0.0), r"at=0\.0"),
    (lambda: problem(Start(kind="estimate")), "kind='estimate'"),
    (lambda: problem(Start(), torch.zeros(2, 2, 1, 10)), "kind='mixture'"),
    (lambda: problem(Start(kind="noise"), torch.zeros(2, 2, 1, 10)), "kind='noise'"),
    (lambda: problem(Start(kind="estimate"), torch.zeros(2, 2, 1, 10), sources=3), "give 3 sources"),
    (lambda: PriorBank([]), "priors is empty"),
    (lambda: PriorBank([lambda x, s: x])(torch.zeros(1, 2, 1, 9), 0.5), "states of 2 sources for 1 priors"),
    (lambda: PriorBank([lambda x, s: x[..., 1:]])(torch.zeros(1, 1, 1, 9), 0.5), "must keep it"),
    (lambda: SourcePrior(model=toy_prior(), label=0), "has 0 classes"),
    (lambda: SourcePrior(model=toy_prior(), class_guidance=1.0), r"class_guidance=1\.0"),
    (lambda: prior_separator(draws=0), "draws=0"),
    (lambda: prior_separator(choose="worst"), "choose='worst'"),
    (lambda: prior_separator(start=Start(kind="estimate")), "start.kind='estimate'"),
    (lambda: prior_separator(first=lambda x: x), "start.kind='mixture'"),
    (lambda: ReconstructionLoss(time=-1.0), r"time=-1\.0"),
    (lambda: ReconstructionLoss(time=0.0, chunks=0.0, spectral=0.0), "one above 0"),
    (lambda: ReconstructionLoss(chunk=0), "chunk=0"),
    (lambda: ReconstructionLoss(hop=600), "hop=600"),
    (lambda: ReconstructionLoss()(torch.ones(1, 1, 100), torch.ones(1, 1, 99)), "differ"),
    (lambda: DiscreteDiffusion(steps=0), "steps=0"),
    (lambda: DiscreteDiffusion(first=0.1, last=0.02), r"first=0\.1"),
    (lambda: DiscreteDiffusion().levels().respaced(9, "odd"), "spacing='odd': choose even, log"),
    (lambda: DiscreteDiffusion().levels(201), "steps=201: the chain has 200 levels"),
    (lambda: DiscreteDiffusion().levels().step(200), "index=200"),
    (lambda: DiscreteDiffusion().condition(torch.tensor([0.5])), r"alpha_bar=0\.5 is none of the 200 levels"),
    (lambda: ContinuousDiffusion(lowest=4.0), r"lowest=4\.0"),
    (lambda: ContinuousDiffusion().levels(0), "steps=0"),
    (lambda: NoiseLevels(torch.tensor([0.5, 0.75])), r"alpha_bar=\[0\.5, 0\.75"),
    (lambda: unet(widths=(8, 12, 8)), r"widths=\(8, 12, 8\)"),
    (lambda: unet(depths=(1, 0, 1)), r"depths=\(1, 0, 1\)"),
    (lambda: unet(window=60), "window=60: .* such as 62"),
    (lambda: unet(heads=3), "heads=3"),
    (lambda: unet(classes=-1), "classes=-1"),
    (lambda: unet()(torch.ones(1, 2, 300), torch.zeros(1)), r"give \(batch, 1, time\)"),
    (lambda: unet(classes=3)(torch.ones(1, 1, 300), torch.zeros(1), torch.tensor([4])), r"labels=\[4\]"),
]
METRICS: Rows = [
    *(
        (lambda f=function: f(NONE, NONE[1:]), r"have shapes \(9,\) and \(8,\): give both the same")
        for function in (si_sdr, snr, sdr, pesq, stoi_16k, estoi_16k)
    ),
    *(
        (lambda f=function: f(torch.ones(1, 2, 8), torch.ones(1, 2, 9)), "give both the same")
        for function in (usdr, csdr_16k)
    ),
    (lambda: pesq(NONE, NONE, mode="swb"), "mode='swb' is not a mode of PESQ: use 'wb'"),
    (lambda: stoi(NONE, NONE, sample_rate=8000), "sample_rate=8000 is below the 10000 Hz of STOI"),
    (lambda: dnsmos(NONE, 8000), "sample_rate=8000 is not the 16000 Hz of DNSMOS: resample"),
    (
        lambda: dnsmos(NONE, names=("ovrl",)),
        r"names=\['ovrl'\] are no scores of DNSMOS: choose from dnsmos_p8",
    ),
    (
        lambda: bss_eval(torch.ones(1, 3, 2, 9), torch.ones(1, 3, 2, 9), sample_rate=9),
        r"give \(source, channel,",
    ),
    (lambda: bss_eval(torch.ones(3, 2, 9), torch.ones(3, 2, 9), sample_rate=9, filters=0), "filters=0: give"),
    (lambda: csdr(torch.ones(3, 2, 9), torch.ones(3, 2, 9), sample_rate=0), "sample_rate=0: give a rate"),
    (lambda: MetricPanel([], sample_rate=16000), r"names=\[\] is empty"),
    (lambda: MetricPanel(["snr"], sample_rate=16000, workers=-1), "workers=-1 is negative"),
    (lambda: MetricPanel(["fixed_point"], sample_rate=16000), r"names=\['fixed_point'\] need the mixture"),
    (lambda: get_metric("pesq", sample_rate=16000, workers=-1), "workers=-1 is negative: give 0 to score in"),
    (lambda: pesq(NONE, NONE, workers=-1), "workers=-1 is no number of processes: give 1 or more"),
    (
        lambda: PESQ(NONE.expand(1, 1, 1, 9)),
        "references=None: 'pesq' is an oracle and needs it, use metric.b",
    ),
    (lambda: PESQ.score(NONE.expand(1, 1, 9)), "references=None: 'pesq'"),
    (lambda: NEAR(torch.ones(2, 2, 2, 9)), r"give the same, or quality.at\(items\)"),
    (lambda: NEAR(torch.ones(3, 2, 9)), r"give \(item, source, channel, time\)"),
    (lambda: joint([SI_SDR_48K, PEAK], scales=[1, 1]), "metrics have the sample rates"),
    (lambda: joint([]), "give at least one"),
    (lambda: joint([PEAK]), "'peak' has no scale of its own: give scales="),
    (lambda: joint([SI_SDR_48K], weights=(1, 2)), r"weights=\(1, 2\) does not fit 1 members"),
    (lambda: joint([SI_SDR_48K], scales=[0.0]), "not all positive"),
    (lambda: guarded(PEAK, []), r"guards=\[\] guard nothing"),
    (
        lambda: guarded(PEAK, [PEAK])(torch.ones(3, 2, 2, 9)),
        "'peak_guarded_peak' compares with the one-step estimate: call rel",
    ),
    (
        lambda: joint([PESQ, PEAK], scales=[1, 1]).bind(),
        r"references=None: 'pesq' is an oracle and needs it, use metric.bind\(reference",
    ),
    (lambda: macs_per_second(nn.Conv1d(1, 1, 1)), "sample_rate=None: Conv1d has none"),
    (
        lambda: macs_per_second(toy_bridge(), seconds=1e-5),
        "seconds=1e-05 at 16000 Hz is less than one sample",
    ),
    (lambda: accelerate(nn.Linear(1, 1), precision="16"), "precision='16'"),
]
ROWS = [*SEARCHES, *SEPARATION, *BRIDGES, *PRIORS, *METRICS]


@pytest.mark.parametrize(("wrong", "message"), ROWS, ids=[message for _, message in ROWS])
def test_a_wrong_setting_is_named_in_one_line(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        wrong()
    assert "\n" not in str(error.value)
