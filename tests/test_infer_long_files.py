"""Files that infer.py refines in segments: the audio, the scores, the notes and the plan."""

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from infer_toys import RATE, oracle, read, run, scores, signals, write_pair
from refinement_toys import cut_out
from torch import Tensor

from encore.cli import dry_run, file_separation, input_audio
from encore.cli.file_separation import FileSeparator
from encore.cli.input_audio import InputAudio
from encore.cli.inputs import Job
from encore.cli.outputs import Outputs
from encore.data.audio import read_audio
from encore.inference import GridSearch, batched, overlap_add, refine
from encore.inference.chunking import segment_bounds
from encore.inference.segments import Chunk, ChunkStatistics, LongItem, refine_segments
from encore.metrics import get_metric, si_sdr
from encore.models.loading import load_separator
from encore.models.wrappers import match_channels

SEGMENTS = ["--segment", "0.2", "--set", "method.overlap_seconds=0.0525", "--set", "method.max_batch=1"]


@pytest.mark.usefixtures("few_metrics")
def test_a_long_file_is_refined_and_scored_in_segments(
    tmp_path: Path, mono: str, capsys, monkeypatch
) -> None:
    for name, frames in (("long.wav", 8000), ("short.wav", 3200)):
        write_pair(tmp_path, name, frames, channels=2, subtype="FLOAT")
    scored: list[int] = []
    score = file_separation.score_chunk

    def watched(chunk: Chunk, *rest: Any) -> Any:
        scored.append(chunk.length)
        assert chunk.mixture.shape[-1] == chunk.references.shape[-1] == chunk.length
        return score(chunk, *rest)

    monkeypatch.setattr(file_separation, "score_chunk", watched)
    assert run(*oracle(tmp_path, mono, scored=True), *SEGMENTS) == 0
    notes = capsys.readouterr().err
    assert "long.wav: refined in 4 segments of 0.2 s, its scores are means over them" in notes
    assert "short.wav" not in notes
    # never more than a chunk of all steps is in memory
    assert scored == [2360, 2360, 2360, 920, 3200]
    clean, noisy, written = (read(tmp_path / kind / "long.wav") for kind in ("clean", "noisy", "out"))
    separate = match_channels(load_separator(mono), 2)

    def refine_one(mixture: Tensor, references: Tensor | None, _: object) -> Chunk:
        quality = get_metric("si_sdr", sample_rate=RATE).bind(references=references)
        search = GridSearch(2, include_estimate=True, steps=1)
        return Chunk.of(refine(batched(separate, 1), mixture, quality, search), mixture)

    reads = {"read": partial(cut_out, noisy[None]), "read_references": partial(cut_out, clean[None, None])}
    item = LongItem(**reads, length=8000, segment=3200, overlap=840)
    chunks = [chunk for _, chunk in refine_segments(refine_one, [item])]
    expected = ChunkStatistics()
    for chunk in chunks:
        expected.add(chunk)
    joined = torch.cat([chunk.waveforms[-1] for chunk in chunks], -1)
    torch.testing.assert_close(written, joined[0, 0], rtol=0, atol=1e-6)
    rows = scores(tmp_path / "out").set_index(["item", "metric", "kind", "step"])
    assert set(rows.loc["long.wav"].index) == set(rows.loc["short.wav"].index)
    last = rows.loc[("long.wav", "si_sdr", "oracle", 1)]
    # the last segment begins at 4800 and is faded in at 7080
    stretches = [slice(0, 2360), slice(2360, 4720), slice(4720, 7080), slice(7080, 8000)]
    parts = [si_sdr(written[:, own], clean[:, own]).mean() * (own.stop - own.start) for own in stretches]
    assert last["value"] == pytest.approx(sum(parts).item() / 8000, rel=1e-4)
    # at most 3 calls on each of 4 segments, 12800 of 8000 samples
    assert last["evaluations"] == expected.evaluations.item() == 5
    assert last["ratio"] == pytest.approx(expected.ratios.item(), nan_ok=True)


def test_segments_side_by_side_give_the_same_file(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "a.wav")
    written = []
    for workers in (1, 2):
        assert run(*oracle(tmp_path, mono), *SEGMENTS, "--set", f"method.workers={workers}") == 0
        written.append((tmp_path / "out" / "a.wav").read_bytes())
    assert written[0] == written[1]
    assert run(*oracle(tmp_path, mono), "--set", "method.segment_seconds=null") == 0
    assert (tmp_path / "out" / "a.wav").read_bytes() != written[0]


@pytest.mark.usefixtures("few_metrics")
def test_a_silent_part_of_a_long_file_costs_no_score(tmp_path: Path, mono: str, capsys) -> None:
    write_pair(tmp_path, "a.wav", 12000)
    clean, _ = signals(12000, RATE)
    clean[4000:] = 0
    soundfile.write(tmp_path / "clean" / "a.wav", clean, RATE, subtype="FLOAT")
    assert run(*oracle(tmp_path, mono, scored=True), *SEGMENTS) == 0
    assert "the guide cannot score 3 of them" in capsys.readouterr().err
    rows = scores(tmp_path / "out")
    assert rows[rows["metric"] == "si_sdr"]["value"].notna().all()


def test_dry_run_counts_the_overlap_of_segments(tmp_path: Path, mono: str, capsys, monkeypatch) -> None:
    write_pair(tmp_path, "a.wav")
    monkeypatch.setattr(dry_run, "_seconds_per_call", lambda files, clip: (10 * clip, 0.0))
    assert run(*oracle(tmp_path, mono), *SEGMENTS, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "(0.5 s, at most 3 separator calls for each of 4 segments)" in text
    # four segments of 0.2 s at 10 s a second and 3 calls
    assert "at most about 24 s" in text
    assert run(*oracle(tmp_path, mono), "--dry-run") == 0
    assert "at most about 15 s" in capsys.readouterr().out
    assert run(*oracle(tmp_path, mono), "--dry-run", "--shifts", 2) == 0
    assert "at most about 30 s" in capsys.readouterr().out
    # refined as a whole, a file has no segments with calls of their own
    assert run(*oracle(tmp_path, mono), *SEGMENTS, "--set", "method.refine_per=item", "--dry-run") == 0
    assert "at most 3 separator calls)" in capsys.readouterr().out


def test_no_more_than_segments_is_ever_in_memory(tmp_path: Path, stereo: str, monkeypatch) -> None:
    write_pair(tmp_path, "a.wav", 40000, channels=2, rate=2 * RATE)
    monkeypatch.setattr(input_audio, "_BLOCK", 3000)
    kept: list[int] = []
    read_window = InputAudio.read

    def read_watched(self: InputAudio, start: int, stop: int) -> Tensor:
        found = read_window(self, start, stop)
        kept.append(sum(part.shape[-1] for part in self._mixture._parts))
        assert found.untyped_storage().nbytes() == 4 * found.numel()
        return found

    monkeypatch.setattr(InputAudio, "read", read_watched)
    written: list[int] = []
    write = Outputs.write

    def write_watched(self: Outputs, estimates: Tensor, *, last: bool) -> None:
        written.append(estimates.shape[-1])
        write(self, estimates, last=last)

    monkeypatch.setattr(Outputs, "write", write_watched)
    arguments = oracle(tmp_path, stereo)
    assert run(*arguments, *SEGMENTS, "--set", "method.workers=1") == 0
    # a segment, and less than a block of twice the rate
    assert max(kept) <= 3200 + 1500
    assert max(written) <= 3200
    assert sum(written) == 20000
    assert read(tmp_path / "out" / "a.wav").shape == (2, 40000)


@pytest.mark.parametrize("options", [["method.segment_seconds=null"], ["method.refine_per=item"]])
def test_an_item_can_be_refined_as_a_whole(tmp_path: Path, mono: str, options: list[str]) -> None:
    write_pair(tmp_path, "a.wav", 20000, subtype="FLOAT")
    changes = [part for option in options for part in ("--set", option)]
    assert run(*oracle(tmp_path, mono, scored=True), *SEGMENTS, *changes) == 0
    clean, noisy, written = (read(tmp_path / kind / "a.wav") for kind in ("clean", "noisy", "out"))
    separate = load_separator(mono)
    if "item" in options[0]:
        separate = overlap_add(separate, segment=3200, overlap=840 / 3200)
    expected = refine(
        separate,
        noisy[None],
        get_metric("si_sdr", sample_rate=RATE).bind(references=clean[None, None]),
        GridSearch(2, include_estimate=True, steps=1),
    )
    torch.testing.assert_close(written, expected.estimates[0, 0], rtol=0, atol=1e-5)
    rows = scores(tmp_path / "out").set_index(["metric", "kind", "step"])
    # a score of the whole file
    value = rows.loc[("si_sdr", "oracle", 1)]["value"]
    assert value == pytest.approx(si_sdr(written, clean).item(), abs=1e-3)


def test_shifts_and_context_and_consistency_are_options(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "a.wav", 8000, subtype="FLOAT")
    outputs = []
    for change in (
        "context_seconds=0",
        "context_seconds=0.01",
        "shifts=2",
        "shifts=2",
        "consistency=uniform",
    ):
        assert run(*oracle(tmp_path, mono), *SEGMENTS, "--set", f"method.{change}") == 0
        outputs.append(read(tmp_path / "out" / "a.wav"))
    assert torch.equal(outputs[2], outputs[3])
    assert len({tuple(output[0].tolist()) for output in outputs}) == 4
    # one source that sums to the mixture is the mixture
    torch.testing.assert_close(outputs[4], read(tmp_path / "noisy" / "a.wav"), rtol=0, atol=1e-6)


def test_files_are_read_once_and_segments_of_several_worked_on_at_the_same_time(
    tmp_path: Path, mono: str, monkeypatch
) -> None:
    """One pool for the segments of all files: no thread starts another, and no sample is decoded twice."""
    for name in ("a.wav", "b.wav", "long.wav"):
        write_pair(tmp_path, name, 8000 if name == "long.wav" else 3200)
    decoded: Counter[str] = Counter()
    read_blocks = input_audio.read_blocks

    def blocks(path: Path, frames: int) -> Iterator[Tensor]:
        for block in read_blocks(path, frames):
            decoded[f"{path.parent.name}/{path.name}"] += block.shape[-1]
            yield block

    monkeypatch.setattr(input_audio, "read_blocks", blocks)
    together = threading.Barrier(3, timeout=60)
    refine_one, threads = FileSeparator._refine, set()

    def watched(self: FileSeparator, *arguments: Any, at_once: int) -> Chunk:
        assert at_once == 3
        threads.add(threading.get_ident())
        together.wait()
        return refine_one(self, *arguments, at_once=at_once)

    monkeypatch.setattr(FileSeparator, "_refine", watched)
    assert run(*oracle(tmp_path, mono, scored=True), *SEGMENTS, "--set", "method.workers=3") == 0
    expected = {"a.wav": 3200, "b.wav": 3200, "long.wav": 8000}
    kinds = ("clean", "noisy")
    assert decoded == {f"{kind}/{name}": frames for kind in kinds for name, frames in expected.items()}
    assert len(threads) == 3


@pytest.mark.parametrize("rate", [8000, RATE, 44100])
def test_windows_of_a_file_are_those_of_the_whole_file(tmp_path: Path, monkeypatch, rate: int) -> None:
    write_pair(tmp_path, "a.wav", rate, rate, channels=2, subtype="FLOAT")
    soundfile.write(tmp_path / "other.wav", signals(48000, 48000, 2)[0], 48000, subtype="FLOAT")
    path, references = tmp_path / "noisy" / "a.wav", (tmp_path / "clean" / "a.wav", tmp_path / "other.wav")
    monkeypatch.setattr(input_audio, "_BLOCK", 1009)
    job = Job(path=path, relative=Path("a.wav"), references=references)
    audio = InputAudio(job, RATE, keep=True)
    assert audio.frames == RATE
    for place in segment_bounds(audio.frames, segment=3200, overlap=840, context=50):
        window = (place.start, place.start + 3200)
        options = {"sample_rate": RATE, "start": window[0], "frames": 3200}
        whole = [read_audio(own, **options)[0] for own in (path, *references)]
        torch.testing.assert_close(audio.read(*window), whole[0][None], rtol=0, atol=1e-6)
        expected = torch.stack(whole[1:])[None]
        torch.testing.assert_close(audio.read_references(*window), expected, rtol=0, atol=1e-6)
    original = torch.cat([audio.take_original(frames) for frames in (1, 5000, rate - 5001)], -1)
    assert torch.equal(original, read(path))
