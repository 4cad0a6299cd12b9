"""This machine: plausible figures, and a memory of them that no damage can turn into a failure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minillm.measure import local, probe
from minillm.measure.machine import Machine
from minillm.measure.probe import measure_machine

MACHINE = Machine(
    name="a machine",
    device="cpu",
    read_bandwidth=1e10,
    copy_bandwidth=2e10,
    matmul_rate={"float32": 1e11},
    memory_bytes=2**34,
    measured=True,
    source="measured by nobody",
    spread={"read": (0.9e10, 1.1e10)},
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Machine]:
    """Measuring is replaced by a counter: each call gives a machine told apart by its memory."""
    calls: list[Machine] = []

    def measure(device: object) -> Machine:
        calls.append(replace(MACHINE, memory_bytes=1000 + len(calls)))
        return calls[-1]

    monkeypatch.setattr(local, "measure_machine", measure)
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "a" / "b"))
    return calls


def stored() -> Path:
    return local.cache_dir() / "machine-cpu.json"


def test_measured_figures_are_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenth of the usual time and memory: rough figures, all that plausibility needs.
    monkeypatch.setattr(probe, "_SECONDS_PER_FIGURE", 0.03)
    monkeypatch.setattr(probe, "_BUFFER_BYTES", 2**26)
    machine = measure_machine("cpu")
    assert machine.measured and machine.device == "cpu" and "thread" in machine.name
    # From a phone to the largest server: wide, because what else runs here is unknown.
    assert 0.2e9 < machine.read_bandwidth < 5e12
    assert 0.2e9 < machine.copy_bandwidth < 5e12
    assert 1e9 < machine.rate("float32") < 1e14
    assert 1e8 < machine.memory_bytes < 1e14
    assert set(machine.spread) == {"read", "copy", *machine.matmul_rate}
    figures = {"read": machine.read_bandwidth, "copy": machine.copy_bandwidth, **machine.matmul_rate}
    for name, (low, high) in machine.spread.items():
        assert low <= figures[name] <= high


def test_a_device_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="meta"):
        measure_machine("meta")


def test_it_is_measured_once_and_comes_back_equal(measured: list[Machine]) -> None:
    first = local.this_machine("cpu")
    assert local.this_machine("cpu") == first
    assert len(measured) == 1


def test_refresh_measures_anew_and_stores_it(measured: list[Machine]) -> None:
    local.this_machine("cpu")
    anew = local.this_machine("cpu", refresh=True)
    assert len(measured) == 2
    assert local.this_machine("cpu") == anew == measured[1]


def test_doubtful_figures_are_returned_but_not_kept(
    measured: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = replace(MACHINE, spread={"read": (0.9e10, 1.1e10), "float32": (1e11, 1.6e11)})
    monkeypatch.setattr(local, "measure_machine", lambda device: busy)
    assert local.this_machine("cpu").doubtful == ["float32"]
    assert not stored().exists()


def test_doubtful_figures_do_not_replace_good_ones(
    measured: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = local.this_machine("cpu")
    monkeypatch.setattr(
        local, "measure_machine", lambda device: replace(MACHINE, spread={"read": (1.0, 2.0)})
    )
    assert local.this_machine("cpu", refresh=True).doubtful == ["read"]
    assert local.this_machine("cpu") == good


def test_doubtful_figures_from_an_older_version_are_measured_again(measured: list[Machine]) -> None:
    local.this_machine("cpu")
    record = json.loads(stored().read_text())
    record["machine"]["spread"]["read"] = [1e9, 2e9]
    stored().write_text(json.dumps(record))
    assert local.this_machine("cpu") == measured[1]


@pytest.mark.parametrize("field", ["name", "torch"])
def test_another_name_or_torch_makes_it_stale(field: str, measured: list[Machine]) -> None:
    local.this_machine("cpu")
    record = json.loads(stored().read_text())
    record["identity"][field] += " of yesterday"
    stored().write_text(json.dumps(record))
    assert local.this_machine("cpu") == measured[1]
    assert local.this_machine("cpu") == measured[1]


DAMAGED = {
    "empty": b"",
    "cut short": b'{"identity": {"na',
    "no text": b"\xff\xfe\x00\x80",
    "a list": b"[1, 2]",
    "no identity": b"{}",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_reported_and_replaced(content: bytes, measured: list[Machine]) -> None:
    stored().parent.mkdir(parents=True)
    stored().write_bytes(content)
    with pytest.warns(UserWarning, match="cannot be used"):
        assert local.this_machine("cpu") == measured[0]
    assert local.this_machine("cpu") == measured[0]


@pytest.mark.parametrize(
    "change",
    [
        {"read_bandwidth": -1},
        {"read_bandwidth": "fast"},
        {"matmul_rate": {"float32": float("nan")}},
        {"matmul_rate": []},
        {"spread": [1]},
        {"flops": 3},
    ],
    ids=str,
)
def test_figures_that_cannot_be_are_reported_and_replaced(change: dict, measured: list[Machine]) -> None:
    local.this_machine("cpu")
    record = json.loads(stored().read_text())
    record["machine"].update(change)
    stored().write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="cannot be used"):
        assert local.this_machine("cpu") == measured[1]


def test_a_folder_that_cannot_be_written_is_reported_and_harmless(
    measured: list[Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="figures cannot be") as warned:
        assert local.this_machine("cpu") == measured[0]
    assert [str(warning.message).partition(",")[0] for warning in warned] == [
        "this machine's stored figures cannot be used",
        "this machine's figures cannot be stored",
    ]


def test_no_half_written_file_is_left(measured: list[Machine]) -> None:
    local.this_machine("cpu")
    assert [path.name for path in local.cache_dir().iterdir()] == ["machine-cpu.json"]


def test_the_cache_folder_is_the_systems_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MINILLM_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
    monkeypatch.setattr(local.sys, "platform", "linux")
    assert local.cache_dir() == Path("/home/someone/.cache/minillm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert local.cache_dir() == Path("/xdg/minillm")
    monkeypatch.setattr(local.sys, "platform", "darwin")
    assert local.cache_dir() == Path("/home/someone/Library/Caches/minillm")
    monkeypatch.setattr(local.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert local.cache_dir() == Path("/local/minillm")
    monkeypatch.setenv("MINILLM_CACHE", "/mine")
    assert local.cache_dir() == Path("/mine")
