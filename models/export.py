"""Write a checkpoint's separator as safetensors beside its configuration: the file that is passed on.

    python -m models.export outputs/RUN/checkpoints/last.ckpt speech_denoiser.safetensors

The averaged weights are taken where the run averaged them.
"""

from __future__ import annotations

import argparse
import sys

from models.checkpoint import checkpoint_config, load_checkpoint, save_separator


def main() -> int:
    """Load, save, load again and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a .ckpt of ours")
    parser.add_argument("out", help="file to write, ending in .safetensors")
    options = parser.parse_args()
    try:
        separator = load_checkpoint(options.checkpoint)
        save_separator(options.out, separator, checkpoint_config(options.checkpoint))
        written = load_checkpoint(options.out).state_dict()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, tensor in separator.state_dict().items():
        if not tensor.equal(written[name]):
            print(f"error: {options.out}: {name} differs from the checkpoint's", file=sys.stderr)
            return 1
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
