"""Install the wheel into an empty environment, as a user does, and run it outside the clone.

Plain pip without options or a C compiler; needs the network, 6 GB of disk and about two minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OUTSIDE = {"tests", "benchmarks", "docs", "slurm"}
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"CC": "false"}
INSTALLED = """
from importlib.metadata import distribution, distributions
files = distribution("encore-separation").files
print(*sorted({file.parts[0] for file in files if file.parts[0] != ".."}))
print(*sorted(file.name for file in files if file.parts[0] == ".."))
print(*{"asteroid", "librosa", "pesq"}.intersection(found.name for found in distributions()))
"""
WRITE = """
import pathlib, numpy, soundfile, encore, encore.models
noise = 0.1 * numpy.random.default_rng(0).normal(size=16000)
for name in ("train/noisy/a", "train/clean/a", "valid/noisy/a", "valid/clean/a", "noisy"):
    path = pathlib.Path(f"audio/{name}.wav")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, 16000)
"""
TRAIN = (
    *("experiment=speech_denoising", "data=paired_folders", "data.root=audio", "data.test=null", "name=run"),
    *("data.segment_seconds=0.5", "data.batch_size=1", "data.num_workers=0", "trainer.fast_dev_run=true"),
)


def run(*command: object, folder: Path, status: int = 0) -> str:
    print("+", *(word for word in command if "\n" not in str(word)), flush=True)
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)
    if done.returncode != status:
        sys.exit(f"status {done.returncode}, not {status}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def belongs_inside(path: str) -> bool:
    """Whether a file of the clone is one of the package: all in its folders, and modules in the root."""
    folder, *below = Path(path).parts
    return folder not in OUTSIDE and not folder.startswith(".") and (bool(below) or path.endswith(".py"))


def check_content(wheel: Path) -> None:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=ROOT).splitlines()
    expected = {f"encore/{path}" for path in listed if belongs_inside(path) and (ROOT / path).exists()}
    found = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected, (sorted(expected - found), sorted(found - expected))
    assert {Path(name).suffix for name in found} >= {".py", ".yaml", ".safetensors", ".j2"}


def check_installation(python: Path, folder: Path) -> None:
    packages, commands, optional = run(python, "-c", INSTALLED, folder=folder).splitlines()
    assert packages.split()[0] == "encore", packages
    assert [name.split("-")[0] for name in packages.split()[1:]] == ["encore_separation"], packages
    assert commands.split() == sorted(PROJECT["scripts"]), commands
    assert not optional, optional
    run(python, "-m", "pip", "check", folder=folder)


def check_use(scripts: Path, folder: Path) -> None:
    for decoy in ("data", "models", "configs", "inference", "train"):
        (folder / decoy).mkdir()
        (folder / decoy / "__init__.py").write_text("raise SystemExit('the decoy was imported')")
    run(scripts / "python", "-c", WRITE, folder=folder)
    run(scripts / "encore-infer", "audio/noisy.wav", "-o", "out", folder=folder)
    assert (folder / "out" / "noisy.wav").is_file()
    assert "usage: encore-report" in run(scripts / "encore-report", "--help", folder=folder)
    assert "Groups" in run(scripts / "encore-train", "--help", folder=folder)
    assert "run folder: " in run(scripts / "encore-train", *TRAIN, folder=folder)
    wrong = run(scripts / "encore-train", "modle=bsrnn_tiny", folder=folder, status=1)
    assert re.fullmatch(r"error: .*did you mean.*\n", wrong), wrong


def main() -> None:
    with TemporaryDirectory(prefix="encore-") as name:
        folder = Path(name)
        # by way of the source archive: built in place, files deleted since would stay in the wheel
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
        (wheel,) = folder.glob("*.whl")
        check_content(wheel)
        venv.create(folder / "empty", with_pip=True)
        scripts = folder / "empty" / "bin"
        run(scripts / "python", "-m", "pip", "install", wheel, folder=folder)
        (folder / "work").mkdir()
        check_installation(scripts / "python", folder / "work")
        check_use(scripts, folder / "work")
        extras = f"{wheel}[metrics,onnx,pretrained,recordings]"
        run(scripts / "python", "-m", "pip", "install", "--dry-run", extras, folder=folder)
    print("the package installs and runs")


if __name__ == "__main__":
    main()
