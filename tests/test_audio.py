from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from separator_toys import noise
from torchaudio.functional import resample as torchaudio_resample

from encore.common.dsp import resample, resampled_length
from encore.data.audio import AudioFileError, StreamResampler, audio_info, read_audio
from encore.data.audio_writing import AudioWriter, write_audio


def _declare_bytes(path: Path, size: int) -> None:
    """Overwrite the size that a WAV header declares for its samples."""
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24")])
def test_a_segment_is_that_part_of_the_file_bit_for_bit(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_audio(path, noise(2, 5000), 16000, subtype=subtype)
    whole, rate = read_audio(path)
    assert (whole.shape, whole.dtype, rate) == ((2, 5000), torch.float32, 16000)
    for start, frames in ((0, 1), (0, 5000), (123, 2048), (4999, 1)):
        segment, _ = read_audio(path, start=start, frames=frames)
        assert torch.equal(segment, whole[:, start : start + frames])
    assert torch.equal(read_audio(path, start=4000)[0], whole[:, 4000:])
    for start, frames in ((-1, 10), (0, 0), (4990, 11), (5000, None)):
        with pytest.raises(ValueError, match=rf"reach outside .*a\.{suffix} of 5000 frames") as caught:
            read_audio(path, start=start, frames=frames)
        assert not isinstance(caught.value, AudioFileError)


@pytest.mark.parametrize(
    ("rate", "target"), [(48000, 16000), (44100, 16000), (16000, 48000), (8000, 44100), (22050, 16000)]
)
def test_a_resampled_segment_is_that_part_of_the_resampled_file(
    tmp_path: Path, rate: int, target: int
) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, noise(2, 4001), rate)
    whole, returned = read_audio(path, sample_rate=target)
    total = -(-4001 * target // rate)  # ceil in integers
    assert (whole.shape[-1], returned) == (total, target) == (resampled_length(4001, rate, target), target)
    scale = float(whole.abs().max())
    for start, frames in (
        (0, 1),
        (0, total),
        (1, 700),
        (total // 2, 401),
        (total - 300, 300),
        (total - 1, 1),
    ):
        segment, _ = read_audio(path, sample_rate=target, start=start, frames=frames)
        assert segment.shape == (2, frames)
        assert float((segment - whole[:, start : start + frames]).abs().max()) < 1e-6 * scale


def test_resampling_agrees_with_torchaudio() -> None:
    waveform = noise(2, 4000).double()
    expected = torchaudio_resample(
        waveform,
        48000,
        16000,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    torch.testing.assert_close(resample(waveform, 48000, 16000), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        resample(waveform.float(), 48000, 16000).double(), expected, rtol=1e-4, atol=1e-6
    )
    assert resample(waveform, 16000, 16000) is waveform


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24"])
def test_an_integer_file_is_copied_bit_for_bit(tmp_path: Path, subtype: str) -> None:
    levels = np.random.default_rng(0).integers(-(2**31), 2**31, size=(3000, 2)).astype(np.int32)
    levels[:2] = [[-(2**31), 2**31 - 1], [0, -(2**31)]]
    soundfile.write(tmp_path / "a.wav", levels, 16000, subtype=subtype)
    info = audio_info(tmp_path / "a.wav")
    assert (info.frames, info.sample_rate, info.channels) == (3000, 16000, 2)
    assert (info.format, info.subtype) == ("WAV", subtype)
    waveform, rate = read_audio(tmp_path / "a.wav")
    assert write_audio(tmp_path / "b.wav", waveform, rate, subtype=info.subtype) == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("name", ["a.wav", "a.WAV", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_every_suffix_is_written_and_read(tmp_path: Path, name: str) -> None:
    # lossy codecs keep a low tone well
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(200_000) / 16000)[None]
    write_audio(tmp_path / "deep" / "er" / name, tone, 16000)
    read, rate = read_audio(tmp_path / "deep" / "er" / name)
    assert (rate, read.shape) == (16000, tone.shape)
    assert float((read - tone).square().mean() / tone.square().mean()) < 1e-3
    assert [file.name for file in (tmp_path / "deep" / "er").iterdir()] == [name]


def test_float_files_are_never_clipped_and_integer_files_as_chosen(tmp_path: Path) -> None:
    loud = torch.tensor([[0.5, -2.0, 1.0, 4.0]])
    path = tmp_path / "a.wav"
    assert write_audio(path, loud, 16000, clip="error") == 0
    assert torch.equal(read_audio(path)[0], loud)
    assert write_audio(path, loud, 16000, subtype="PCM_16") == 2
    step = 2.0**-15
    assert read_audio(path)[0].tolist() == [[0.5, -1.0, 1 - step, 1 - step]]
    assert write_audio(path, loud, 16000, subtype="PCM_16", clip="rescale") == 2
    assert read_audio(path)[0].tolist() == [[0.125, -0.5, 0.25, 1 - step]]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"exceeds full scale at 2 samples \(peak 4\).*FLOAT"):
        write_audio(path, loud, 16000, subtype="PCM_16", clip="error")
    assert path.read_bytes() == before
    quiet = loud / 4
    assert write_audio(path, quiet, 16000, subtype="PCM_16", clip="rescale") == 0
    assert read_audio(path)[0].tolist() == [[0.125, -0.5, 0.25, 1 - step]]


@pytest.mark.parametrize("clip", ["clamp", "rescale", "error"])
@pytest.mark.parametrize("fails", ["disk", "caller"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: str, fails: str
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    path = tmp_path / "a.wav"
    write_audio(path, noise(2, 5000), 16000)
    before = path.read_bytes()
    if fails == "disk":
        monkeypatch.setattr(soundfile.SoundFile, "write", full)
    writer = AudioWriter(path, 16000, 2, frames=100, subtype="PCM_16", clip=clip)
    with pytest.raises(OSError, match="No space"), writer:
        writer.write(noise(2, 50, seed=1)) or full()
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


MONO = torch.zeros(1, 100)


@pytest.mark.parametrize(
    ("name", "waveform", "options", "message"),
    [
        ("a.xyz", MONO, {}, "no suffix that can be written"),
        ("a.flac", MONO, {"subtype": "FLOAT"}, r"subtype='FLOAT' cannot be stored in FLAC.*PCM_24"),
        ("a.wav", MONO, {"clip": "loud"}, "clip='loud' is unknown"),
        ("a.wav", torch.tensor([[0.0, torch.nan]]), {}, "NaN or infinite"),
        ("a.wav", torch.zeros(5), {}, r"give \(channel, time\)"),
        ("a.wav", torch.zeros(1, 2, 3), {}, r"give \(channel, time\)"),
        ("a.wav", torch.zeros(2, 0), {}, r"give \(channel, time\)"),
        ("a.mp3", MONO, {"sample_rate": 12345}, r"cannot be written as MP3.*WAV"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, name: str, waveform: torch.Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        write_audio(tmp_path / name, waveform, **{"sample_rate": 16000, **options})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_unusable_files_say_why_in_one_line(tmp_path: Path) -> None:
    write_audio(tmp_path / "good.wav", noise(2, 5000), 16000, subtype="PCM_16")
    content = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no audio at all, but long enough to look like a header")
    (tmp_path / "cut.wav").write_bytes(content[:-2000])
    (tmp_path / "header.wav").write_bytes(content[:20])
    soundfile.write(tmp_path / "silent.wav", np.zeros((0, 1)), 16000)
    reasons = {
        "absent.wav": "no such file",
        "empty.wav": r"empty \(0 bytes\)",
        "text.wav": "not audio",
        "cut.wav": r"truncated.*20000 bytes of samples and it holds 18000",
        "header.wav": "not audio",
        "silent.wav": "no samples",
    }
    for name, reason in reasons.items():
        for read in (audio_info, read_audio):
            with pytest.raises(AudioFileError, match=rf"{name}: {reason}") as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
    with pytest.raises(AudioFileError, match="a folder, not a file"):
        read_audio(tmp_path)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "rf64.wav"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    path, container = tmp_path / name, "RF64" if name == "rf64.wav" else None
    soundfile.write(path, noise(1, 100_000).T.numpy(), 16000, format=container)
    assert read_audio(path)[0].shape == (1, 100_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioFileError, match=r"truncated|damaged"):
        read_audio(path)


def test_headers_of_piped_files_are_not_taken_for_truncation(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, noise(2, 5000), 16000, subtype="PCM_16")
    whole, _ = read_audio(path)
    for size in (0xFFFFFFFF, 0x7FFFF000):  # ffmpeg, sox
        _declare_bytes(path, size)
        assert torch.equal(read_audio(path)[0], whole)
    _declare_bytes(path, 0)
    with pytest.raises(AudioFileError, match=r"no samples.*pipe.*ffmpeg"):
        read_audio(path)


def test_non_finite_samples(tmp_path: Path) -> None:
    samples = np.zeros(100, dtype=np.float32)
    samples[[3, 50]] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioFileError, match="2 samples are NaN or infinite"):
        read_audio(tmp_path / "a.wav")
    assert read_audio(tmp_path / "a.wav", start=4, frames=46)[0].abs().sum() == 0


@pytest.mark.parametrize(
    ("old", "new", "cuts"),
    [
        (16000, 44100, [1, 2, 3, 4000]),
        (44100, 16000, [700, 700, 700, 700, 700]),
        (44100, 16000, [5000]),
        (8000, 16000, [0, 2500, 0, 2500]),
        (48000, 8000, [1, 2, 3, 4000]),
        (5, 5, [700, 4000]),
    ],
)
def test_resampling_part_by_part_gives_the_same(old: int, new: int, cuts: list[int]) -> None:
    waveform = noise(2, 6000)
    resampler = StreamResampler(old, new)
    parts = list(waveform.split([*cuts, 6000 - sum(cuts)], dim=-1))
    results = [resampler.push(part) for part in parts[:-1]] + [resampler.push(parts[-1], last=True)]
    torch.testing.assert_close(torch.cat(results, dim=-1), resample(waveform, old, new), rtol=0, atol=2e-6)
    if old != new and len(cuts) > 1:
        # what can be known is given out at once, and no more is kept than the filter needs
        assert sum(part.shape[-1] for part in results[:-1]) > (sum(cuts) - 2500) * new / old - 1


@pytest.mark.parametrize("clip", ["clamp", "rescale"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_file_written_part_by_part_is_the_same(tmp_path: Path, subtype: str, clip: str) -> None:
    waveform = 20 * noise(2, 5000)
    whole = write_audio(tmp_path / "whole.wav", waveform, 16000, subtype=subtype, clip=clip)
    with AudioWriter(
        tmp_path / "parts.wav", 16000, len(waveform), frames=5000, subtype=subtype, clip=clip
    ) as writer:
        for part in waveform.split([1, 0, 1999, 3000], dim=-1):
            writer.write(part)
        assert not (tmp_path / "parts.wav").exists()
    assert writer.exceeding == whole
    assert (whole > 0) == (subtype != "FLOAT")
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
