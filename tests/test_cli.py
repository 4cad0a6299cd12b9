"""The command line: what it prints, its exit status, and one-line errors instead of tracebacks."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from minillm import tour as tour_module
from minillm.cli import main
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.timing import factor_text
from minillm.tour import LADDER, Rung, Unavailable, save, tour
from tests.engine import tiny

ROOT = Path(__file__).parents[1]


def test_generate_prints_the_prompt_and_its_continuation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Once upon a time", "--max-tokens", "8", "--seed", "1"]) == 0
    whole = capsys.readouterr().out
    assert whole.startswith("Once upon a time") and len(whole) > len("Once upon a time\n")


def test_stream_prints_what_generate_prints(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "The fox", "--max-tokens", "12", "--seed", "3"]
    main(arguments)
    whole = capsys.readouterr().out
    main([*arguments, "--stream"])
    assert capsys.readouterr().out == whole


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in "1", "1", "2":
        main(["generate", "The fox", "--max-tokens", "16", "--seed", seed])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_chat_prints_the_answer_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Tell me a story about Nina.", "--chat", "--max-tokens", "8"]) == 0
    assert "Tell me a story" not in capsys.readouterr().out


@pytest.mark.parametrize("way", [[], ["--stream"]])
@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model:tinytales-draft"])
def test_speculation_keeps_the_text_and_tells_what_was_accepted(
    method: str, way: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["generate", "The fox said", "--max-tokens", "40", "--seed", "1", *way]
    assert main(plain) == 0
    text = capsys.readouterr()
    assert text.err == ""
    assert main([*plain, "--speculate", method, "--num-speculative-tokens", "3"]) == 0
    drafted = capsys.readouterr()
    assert drafted.out == text.out
    found = re.fullmatch(
        r"([\d,]+) drafts, (\d+) accepted(?: \((\d+)%\))?, (\d+\.\d\d) tokens per step\n", drafted.err
    )
    assert found, drafted.err
    drafts, accepted = int(found[1]), int(found[2])
    assert found[3] is None if drafts == 0 else int(found[3]) == round(100 * accepted / drafts)
    if method.startswith("draft_model"):
        assert 0 < accepted < drafts
        # Each step gives its accepted drafts and one more token.
        assert float(found[4]) == pytest.approx(40 / (40 - accepted), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate"], "give a prompt or --file, for example: minillm generate"),
        (["generate", "a", "--file", "b"], "give a prompt or --file, and not both"),
        (["generate", "a", "--file"], None),
        (["generate", "a", "--max-tokens", "0"], "max_tokens"),
        (["generate", ""], "empty"),
        (["generate", "a", "--model", "no/such/model"], "no model 'no/such/model'"),
        (["generate", "a", "--device", "tpu"], "device='tpu'"),
        (["generate", "a", "--n", "2", "--stream"], "--stream shows one text"),
        (["generate", "word " * 2000], "max_model_len is 1024"),
        (["generate", "a", "--speculate", "ngrams"], "method='ngrams'"),
        (["generate", "a", "--speculate", "draft_model"], "write --speculate draft_model:tinytales-draft"),
        (["generate", "a", "--speculate", "eagle3:"], "--speculate eagle3: names no model"),
        (["generate", "a", "--speculate", "ngram:tinytales"], "model='tinytales'"),
        (["generate", "a", "--speculate", "draft_model:no/such/model"], "no model 'no/such/model'"),
        (["generate", "a", "--num-speculative-tokens", "3"], "--num-speculative-tokens 3 needs --speculate"),
        (
            ["generate", "a", "--speculate", "ngram", "--num-speculative-tokens", "0"],
            "num_speculative_tokens=0",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], says: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse's own
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    if says is not None:
        assert says in error and error.count("\n") == 1


def test_a_prompt_file_must_be_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("naïve".encode("latin-1"))
    assert main(["generate", "--file", str(file)]) == 2
    error = capsys.readouterr().err
    assert "not UTF-8" in error and "0xef at offset 2" in error and str(file) in error
    assert main(["generate", "--file", str(tmp_path / "none.txt")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_prompt_file_is_read_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Once upon a time", encoding="utf-8")
    assert main(["generate", "--file", str(file), "--max-tokens", "4", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("Once upon a time")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m minillm.cli generate 'The fox' --stream --max-tokens 400 | head -c 5"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("The f", "")


@pytest.mark.parametrize(
    "words", [["--help"], [], ["progress"], ["start", "03", "--no-open"], ["lab", "--help"]]
)
def test_commands_that_run_no_model_import_no_torch(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from minillm.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    for name in ("notebooks", "exercises"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "exercises" / "03_kv_cache.ipynb", tmp_path / "exercises")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "numpy", "triton", "rich", "matplotlib"} & set(done.stdout.split())


def test_the_name_alone_shows_three_things_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  minillm ")]
    assert [line.split()[1] for line in lines] == ["generate", "tour", "lab"]


@pytest.fixture(scope="module")
def report() -> dict:
    return tour(seconds_a_round=0.5, rounds=1, memory=False)


@pytest.mark.slow
def test_the_tour_measures_every_rung(report: dict) -> None:
    assert [rung["name"] for rung in report["rungs"]] == [rung.name for rung in LADDER]
    for before, rung in zip([None, *report["rungs"]], report["rungs"], strict=False):
        assert rung["same_text"] and rung["tokens_per_second"] > 0 and rung["ttft_s"] > 0
        expected = None if before is None else rung["tokens_per_second"] / before["tokens_per_second"]
        assert rung["factor"] == expected


def test_the_tour_tells_each_rung_as_soon_as_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour_module, "this_machine", lambda device: KNOWN_GPUS["A100"])
    monkeypatch.setattr(tour_module, "LADDER", LADDER[1:3])
    told: list[str] = []
    whole = tour(
        say=lambda done, what: told.append(what),
        begun=lambda report: told.append(f"begun with {len(report['rungs'])} rungs"),
        measured=lambda rung: told.append(f"{rung['name']} done"),
        seconds_a_round=0.2,
        rounds=2,
        memory=False,
    )
    first, second = (rung["name"] for rung in whole["rungs"])
    assert told[told.index("begun with 0 rungs") + 1 :] == [
        f"{second}: round 1 of 2",
        f"{first}: round 1 of 2",
        f"{first}: the last round",
        f"{first} done",
        f"{second}: the last round",
        f"{second} done",
        "done",
    ]


def test_a_file_gets_each_rung_at_once(
    report: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No terminal is connected here, and nothing is held back until the end."""
    seen: list[str] = []

    def short_tour(model: object, say: object, *, begun: Callable, measured: Callable) -> dict:
        begun(report)
        seen.append(capsys.readouterr().out)
        for rung in report["rungs"]:
            measured(rung)
            seen.append(capsys.readouterr().out)
        return report

    monkeypatch.setattr(tour_module, "tour", short_tour)
    assert main(["tour", "--out", str(tmp_path)]) == 0
    assert report["machine"]["machine"] in seen[0] and report["story"]["text"] in seen[0]
    for rung, line in zip(report["rungs"], seen[1:], strict=True):
        assert line.startswith(rung["name"]) and f"{rung['tokens_per_second']:,.0f}" in line
        assert line.count("\n") == 1, "one line each, however narrow the terminal"


@pytest.mark.parametrize("doubtful", [[], ["read", "int8"]])
def test_figures_that_scatter_are_shown_as_doubtful(
    doubtful: list[str],
    report: dict,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def short_tour(model: object, say: object, *, begun: Callable, measured: Callable) -> dict:
        begun(report | {"roofline": report["roofline"] | {"doubtful": doubtful}})
        return report

    monkeypatch.setattr(tour_module, "tour", short_tour)
    assert main(["tour", "--out", str(tmp_path)]) == 0
    assert ("are doubtful: read, int8." in capsys.readouterr().out) == bool(doubtful)


def test_what_was_not_measured_is_not_shown(report: dict) -> None:
    assert all(rung["peak_bytes"] is None for rung in report["rungs"])


def test_the_report_is_saved_with_its_picture(report: dict, tmp_path: Path) -> None:
    files = save(report, tmp_path)
    assert json.loads(files[0].read_text()) == json.loads(json.dumps(report))
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_rung_that_cannot_run_is_shown_with_the_reason(
    report: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def impossible(llm: object) -> object:
        raise Unavailable("needs a machine with wings")

    monkeypatch.setattr(tour_module, "this_machine", lambda device: KNOWN_GPUS["A100"])
    ladder = [LADDER[1], Rung("flying", "by air", impossible), LADDER[2]]  # type: ignore[arg-type]
    monkeypatch.setattr(tour_module, "LADDER", ladder)
    short = tour(seconds_a_round=0.2, rounds=1, memory=False)
    flying, last = short["rungs"][1:]
    assert flying["skipped"] == "needs a machine with wings"
    assert flying["tokens_per_second"] is None and flying["factor"] is None
    assert last["factor"] == last["tokens_per_second"] / short["rungs"][0]["tokens_per_second"]
    assert len(save(short, tmp_path)) == 2


@pytest.mark.slow
def test_a_rung_that_loses_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tour_module, "this_machine", lambda device: KNOWN_GPUS["A100"])
    _naive, kv_cache, *_ = LADDER
    slow = Rung("slow", "again and again", LADDER[0].make, "It computes everything again.")
    fast = Rung("fast", "once", kv_cache.make, "This is never said.")
    monkeypatch.setattr(tour_module, "LADDER", [kv_cache, slow, fast])
    monkeypatch.setattr(tour_module, "tour", partial(tour, seconds_a_round=0.4, rounds=1, memory=False))
    assert main(["tour", "--out", str(tmp_path)]) == 0
    rungs = json.loads((tmp_path / "tour.json").read_text())["rungs"]
    assert [rung["caveat"] for rung in rungs] == [None, "It computes everything again.", None]
    assert rungs[1]["factor"] < 1 < rungs[2]["factor"]
    said = capsys.readouterr().out
    assert f"slow, {factor_text(rungs[1]['factor'])}: It computes everything again." in said
    assert "never said" not in said


def test_a_loss_is_not_rounded_to_1() -> None:
    assert [factor_text(factor) for factor in (None, 2.04, 1.0, 0.996, 0.86)] == [
        "", "×2.0", "×1.0", "×0.99", "×0.86"
    ]  # fmt: skip


def test_a_model_without_a_draft_model_has_no_rung_with_speculation() -> None:
    [speculative] = [rung for rung in LADDER if rung.name == "speculative"]
    with tiny.llm() as llm, pytest.raises(Unavailable, match=f"no draft model for {re.escape(llm.name)}"):
        speculative.make(llm)


@pytest.mark.slow
def test_make_tour_prints_its_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "minillm.cli", "tour", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "tour.json").read_text())
    for rung in report["rungs"]:
        assert rung["name"] in done.stdout and f"{rung['tokens_per_second']:,.0f}" in done.stdout
        assert rung["peak_bytes"] is None or rung["peak_bytes"] > 10 * 2**20
