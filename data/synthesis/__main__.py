"""Write a synthetic corpus: ``python -m encore.data.synthesis CORPUS OUT``; ``--help`` lists the corpora."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from encore.data.synthesis import fsdkaggle2018, librimix, musdb18_hq, vctk, voicebank_demand
from encore.data.synthesis.events import EVENTS
from encore.data.synthesis.speech import SynthesisError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        Exit status: 0, or 1 with one line on standard error for a value or folder that will not do.
    """
    options = _parser().parse_args(arguments)
    try:
        options.write(options)
    except (ValueError, OSError, SynthesisError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m encore.data.synthesis", description="Write a synthetic corpus."
    )
    corpora = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    _add_voicebank_demand(corpora.add_parser("voicebank_demand", help="noisy speech, as VoiceBank-DEMAND"))
    _add_librimix(corpora.add_parser("librimix", help="speakers who talk at once, as LibriMix"))
    _add_musdb18_hq(corpora.add_parser("musdb18_hq", help="composed songs in four stems, as MUSDB18-HQ"))
    _add_vctk(corpora.add_parser("vctk", help="many speakers, one at a time, as VCTK"))
    _add_fsdkaggle2018(corpora.add_parser("fsdkaggle2018", help="sound events by class, as FSDKaggle2018"))
    return parser


def _add_voicebank_demand(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    parser.add_argument("--train", type=int, default=400, help="training files (400)")
    parser.add_argument("--test", type=int, default=60, help="test files (60)")
    parser.add_argument("--sample-rate", type=int, default=16_000, help="16000 or 48000 Hz (16000)")
    parser.add_argument("--room", type=float, default=0.0, metavar="P", help="share of files in rooms (0)")
    parser.add_argument(
        "--synthesiser",
        default="espeak",
        metavar="NAME",
        help="of the speech: espeak, or flite, which needs 16000 Hz (espeak)",
    )
    parser.set_defaults(write=_write_voicebank_demand)


def _add_librimix(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    parser.add_argument("--train", type=int, default=400, help="mixtures in train-100 (400)")
    parser.add_argument("--valid", type=int, default=40, help="mixtures in dev (40)")
    parser.add_argument("--test", type=int, default=60, help="mixtures in test (60)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="shortest mixture; the longest is 2 s more (3)"
    )
    parser.add_argument("--sample-rate", type=int, default=8_000, help="8000 or 16000 Hz (8000)")
    parser.add_argument("--speakers", type=int, default=2, help="in a mixture, 2 or 3 (2)")
    parser.add_argument("--synthesiser", default="espeak", metavar="NAME", help="espeak or flite (espeak)")
    parser.set_defaults(write=_write_librimix)


def _add_musdb18_hq(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    parser.add_argument("--train", type=int, default=20, help="songs in train (20)")
    parser.add_argument("--test", type=int, default=5, help="songs in test (5)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of every song (60)")
    parser.add_argument("--sample-rate", type=int, default=44_100, help="22050, 44100 or 48000 Hz (44100)")
    parser.set_defaults(write=_write_musdb18_hq)


def _add_vctk(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    parser.add_argument("--speakers", type=int, default=20, help="1 to 110 (20)")
    parser.add_argument("--utterances", type=int, default=40, help="of every speaker (40)")
    parser.add_argument(
        "--test-speakers",
        type=int,
        default=10,
        metavar="N",
        help="how many of the speakers, the last ones, have timbres that no other has (10)",
    )
    parser.add_argument("--sample-rate", type=int, default=16_000, help="16000 or 48000 Hz (16000)")
    parser.add_argument(
        "--synthesiser", default="espeak", metavar="NAME", help="espeak, or flite at 16000 Hz (espeak)"
    )
    parser.set_defaults(write=_write_vctk)


def _add_fsdkaggle2018(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    parser.add_argument("--train", type=int, default=60, help="training clips of every class (60)")
    parser.add_argument("--test", type=int, default=10, help="test clips of every class (10)")
    parser.add_argument("--sample-rate", type=int, default=16_000, help="16000 or 44100 Hz (16000)")
    parser.add_argument(
        "--classes", nargs="+", default=list(EVENTS), metavar="CLASS", help=f"all of {', '.join(EVENTS)}"
    )
    parser.set_defaults(write=_write_fsdkaggle2018)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """Add what every corpus takes."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or new")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus in OUT")


def _write_voicebank_demand(options: argparse.Namespace) -> None:
    corpus = voicebank_demand.VoicebankDemand(
        out=options.out,
        train=options.train,
        test=options.test,
        sample_rate=options.sample_rate,
        seed=options.seed,
        room=options.room,
        synthesiser=options.synthesiser,
    )
    voicebank_demand.write_corpus(corpus, workers=options.workers, overwrite=options.overwrite)


def _write_librimix(options: argparse.Namespace) -> None:
    corpus = librimix.LibriMix(
        out=options.out,
        train=options.train,
        valid=options.valid,
        test=options.test,
        seconds=options.seconds,
        sample_rate=options.sample_rate,
        speakers=options.speakers,
        seed=options.seed,
        synthesiser=options.synthesiser,
    )
    librimix.write_corpus(corpus, workers=options.workers, overwrite=options.overwrite)


def _write_musdb18_hq(options: argparse.Namespace) -> None:
    corpus = musdb18_hq.Musdb18Hq(
        out=options.out,
        train=options.train,
        test=options.test,
        seconds=options.seconds,
        sample_rate=options.sample_rate,
        seed=options.seed,
    )
    musdb18_hq.write_corpus(corpus, workers=options.workers, overwrite=options.overwrite)


def _write_vctk(options: argparse.Namespace) -> None:
    corpus = vctk.Vctk(
        out=options.out,
        speakers=options.speakers,
        utterances=options.utterances,
        test_speakers=options.test_speakers,
        sample_rate=options.sample_rate,
        seed=options.seed,
        synthesiser=options.synthesiser,
    )
    vctk.write_corpus(corpus, workers=options.workers, overwrite=options.overwrite)


def _write_fsdkaggle2018(options: argparse.Namespace) -> None:
    corpus = fsdkaggle2018.FsdKaggle2018(
        out=options.out,
        train=options.train,
        test=options.test,
        classes=tuple(options.classes),
        sample_rate=options.sample_rate,
        seed=options.seed,
    )
    fsdkaggle2018.write_corpus(corpus, workers=options.workers, overwrite=options.overwrite)


if __name__ == "__main__":
    sys.exit(main())
