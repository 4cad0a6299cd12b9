"""The player in a headless Chromium: in JupyterLab, live while the engine runs, and in HTML without a kernel."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install -e '.[course]'")
pytest.importorskip("anywidget", reason="anywidget is not installed: pip install -e '.[course]'")

from playwright.sync_api import Browser, Page, sync_playwright

from minillm import LLM, SamplingParams
from minillm.measure.trace import RequestAdded, StepRecord, TokenRecord, Trace
from minillm.player.page import page
from minillm.player.recording import Recording, TokenText
from minillm.viz import style
from minillm.viz.paged_attention import History
from tests.browser.lab import BROWSER_ARGS, PATIENCE, OpenNotebook, chromium, jupyterlab
from tests.engine import tiny
from tests.player.test_recording import tokenizer, traced

pytestmark = pytest.mark.slow

LIVE = """
from minillm import LLM, SamplingParams
from minillm.measure.trace import StepRecord
from minillm.viz.player import Player

llm = LLM("tinytales", trace=True, max_model_len=512, max_num_seqs=4, num_gpu_blocks_override=96)
with Player(llm, position=2) as player:
    params = [SamplingParams(max_tokens=120, seed=i, ignore_eos=True) for i in range(6)]
    llm.generate(["Once upon a time", "The fox", "A king"] * 2, params, use_tqdm=False)
print("steps:", len(llm.trace.of(StepRecord)))
"""
PRINTED = ".jp-RenderedText:has-text('steps:')"
CLOSED = ".jp-RenderedText:has-text('closed after')"
ROOM = """
from minillm.viz.control_room import ControlRoom

room = ControlRoom(llm, steps_per_second=None, max_tokens=12)
display(room)
room.add_ten()
room.wait()
room.close()
print("closed after", len(room.player.recording.trace.of(StepRecord)))
"""
STEPS = "() => document.querySelector('.mp')?.player.run.steps.length ?? 0"
ALL = "count => document.querySelector('.mp')?.player.run.steps.length === count"
STATE = """() => {
  const { player } = document.querySelector(".mp"), { run } = player;
  return { position: player.position, steps: run.steps.length, playing: player.playing, live: run.live,
    texts: run.requests.map(request => run.text(request.tokens)) };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if (path := chromium()) is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS, timeout=PATIENCE * 1e3)
        yield browser
        browser.close()


class Run:
    """A notebook with a live player: its page in JupyterLab, and the notebook as it was saved."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        path = folder / "live.ipynb"
        path.write_text(json.dumps(notebook(LIVE, ROOM)))
        with jupyterlab(folder, folder / "state") as (url, token):
            lab = OpenNotebook(browser, url, token, path.name)
            self.counts = self.watched(lab)
            self.printed = int(lab.page.locator(PRINTED).inner_text().split()[1])
            lab.page.wait_for_function(ALL, arg=self.printed)
            self.state = lab.page.evaluate(STATE)
            self.room = int(lab.page.locator(CLOSED).inner_text().split()[2])
            lab.page.wait_for_function(ALL.replace(".mp", ".widget-vbox .mp"), arg=self.room)
            lab.page.wait_for_timeout(500)
            self.papers = lab.page.evaluate(
                "() => [...document.querySelectorAll('.mp')].map(box => box.player.theme.paper)"
            )
            lab.page.wait_for_timeout(4000)  # the part for viewers without a kernel waits 3 s for the widget
            self.num_players = lab.page.locator(".mp:visible").count()
            self.num_pictures = lab.page.locator(".jp-OutputArea img:visible").count()
            self.rested = lab.page.evaluate(STATE)["position"]
            self.keys = self.pressed(lab.page)
            self.complaints, self.errors, self.elsewhere = (
                lab.complaints(),
                lab.errors,
                lab.requests_elsewhere,
            )
            lab.page.keyboard.press("Control+s")
            lab.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
            lab.page.wait_for_timeout(1000)
            self.saved = json.loads(path.read_text())
            lab.page.close()

    @staticmethod
    def watched(lab: OpenNotebook) -> set[int]:
        """The numbers of steps that the player showed while the cell was running."""
        lab.page.locator("#jp-MainMenu").get_by_text("Run", exact=True).click()
        lab.page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
        counts, until = set(), time.monotonic() + PATIENCE
        while not lab.page.locator(PRINTED).count() and not lab.complaints() and time.monotonic() < until:
            counts.add(lab.page.evaluate(STEPS))
            lab.page.wait_for_timeout(50)
        return counts

    @staticmethod
    def pressed(tab: Page) -> list[Any]:
        """The position after some keys, and the number of cells that JupyterLab still has."""
        box = tab.locator(".mp:visible").first
        box.focus()
        seen = []
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft", "End", "Space"):
            box.press(key)
            tab.wait_for_timeout(200)
            state = tab.evaluate(STATE)
            seen.append(state["playing"] if key == "Space" else state["position"])
        box.press("Space")
        return [*seen, tab.locator(".jp-CodeCell").count()]


def notebook(*sources: str) -> dict[str, Any]:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for i, source in enumerate(sources)
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(scope="module")
def run(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(browser, tmp_path_factory.mktemp("lab"))


def test_in_jupyterlab_it_follows_the_engine_and_nothing_is_lost(run: Run) -> None:
    assert run.complaints == [] and run.errors == [] and run.elsewhere == []
    assert len(run.counts - {0, run.printed}) >= 3, "it must grow while the cell runs"
    assert run.state["steps"] == run.printed and not run.state["live"]
    assert len(run.state["texts"]) == 6 and all(len(text) > 100 for text in run.state["texts"])


def test_after_the_run_it_shows_the_position_that_the_author_chose(run: Run) -> None:
    assert run.rested == 2


def test_in_jupyterlab_the_widgets_show_in_its_colours_and_nothing_takes_their_place(run: Run) -> None:
    assert (run.num_players, run.num_pictures) == (2, 0)
    assert run.papers == ["rgb(255, 255, 255)"] * 2


def test_keys_move_it_and_do_not_reach_jupyterlab(run: Run) -> None:
    assert run.keys == [0, 1, 2, 1, run.printed, True, 2]


@pytest.fixture(scope="module", params=["saved by JupyterLab", "with the widget's state"])
def exported(request: pytest.FixtureRequest, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook as HTML. `nbconvert --execute` stores the state of widgets, and then prefers them."""
    import nbformat
    from nbconvert import HTMLExporter

    saved = nbformat.reads(json.dumps(run.saved), as_version=4)
    if "state" in request.param:
        model = saved.cells[0].outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"]
        state = {"state": {model: {}}, "version_major": 2, "version_minor": 0}
        saved.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    path = tmp_path_factory.mktemp("exported") / "live.html"
    path.write_text(HTMLExporter().from_notebook_node(saved)[0])
    return path


def test_exported_html_replays_without_a_kernel(browser: Browser, run: Run, exported: Path) -> None:
    tab = browser.new_page()
    tab.goto(exported.as_uri())
    tab.wait_for_selector(".mp canvas")
    assert tab.evaluate(STATE)["texts"] == run.state["texts"]
    tab.wait_for_function("() => document.querySelectorAll('.mp canvas').length === 8")
    assert tab.locator(".mp:visible").count() == 2 and tab.locator(".jp-OutputArea img:visible").count() == 0
    tab.get_by_role("button", name="Play").first.click()
    tab.wait_for_function("() => document.querySelector('.mp').player.position > 2")
    tab.get_by_role("button", name="Pause").first.click()
    assert not tab.evaluate(STATE)["playing"]
    tab.close()


def test_without_scripts_a_picture_takes_its_place(browser: Browser, exported: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(exported.as_uri())
    assert tab.locator(".mp").count() == 0
    pictures = tab.locator(".jp-OutputArea img")
    assert pictures.count() == 2 and pictures.first.is_visible()
    context.close()


def test_the_outputs_are_small(run: Run) -> None:
    for cell in run.saved["cells"]:
        size = sum(
            len("".join(text)) for output in cell["outputs"] for text in output.get("data", {}).values()
        )
        assert 20_000 < size < 300_000


def opened(
    browser: Browser,
    folder: Path,
    trace: Trace,
    settings: dict[str, Any],
    token_text: TokenText | None = None,
) -> Page:
    """Return a page that shows this run."""
    recording = Recording(trace, settings, token_text or tokenizer().token_text)
    recording.extend()
    html = folder / "run.html"
    html.write_text(page(recording.whole()))
    tab = browser.new_page()
    tab.goto(html.as_uri())
    tab.wait_for_selector(".mp canvas")
    return tab


@pytest.mark.parametrize("kind", ["plain", "few blocks", "drafts", "draft model", "static", "rebuilt"])
def test_it_knows_the_memory_of_every_step(browser: Browser, tmp_path: Path, kind: str) -> None:
    trace, settings, _ = traced(kind)
    tab = opened(browser, tmp_path, trace, settings)
    seen = tab.evaluate(
        """() => {
          const { run } = document.querySelector(".mp").player;
          return run.steps.map(({ step, total }) => ({
            tables: Object.fromEntries(run.requests.map(request => [request.id, run.table(request, step)])),
            held: run.memory(step).holders.size,
            known: [...Array(total).keys()].filter(block => run.isKnown(block, step)),
          }));
        }"""
    )
    tab.close()
    counts = [record.blocks for record in trace.of(StepRecord)]
    assert [state["held"] for state in seen] == [count.total - count.free for count in counts]
    if kind == "rebuilt":
        return  # the picture of chapter 4 knows of one engine only
    for state, memory in zip(seen, History.of(trace, settings["block_size"]).steps, strict=True):
        tables = {name: table for name, table in state["tables"].items() if table}
        assert tables == {name: list(table) for name, table in memory.tables.items()}
        assert set(state["known"]) == memory.known


def test_before_the_first_step_no_word_is_new(browser: Browser, tmp_path: Path) -> None:
    """A prompt's words are no output of the step that the player shows."""
    trace, settings, _ = traced("plain")
    tab = opened(browser, tmp_path, trace, settings)
    new = tab.evaluate(
        """async () => {
          const { player } = document.querySelector(".mp"), text = player.panels.find(panel => panel._piece);
          const counts = [], draw = text._piece.bind(text);
          let fresh;
          text._piece = (...rest) => { fresh.push(rest[6]); draw(...rest); };
          for (const step of [0, 2]) {
            fresh = [];
            player.seek(step);
            while (!fresh.length) await new Promise(requestAnimationFrame);
            counts.push(fresh.filter(Boolean).length);
          }
          return counts;
        }"""
    )
    tab.close()
    assert new[0] == 0 and new[1] > 0


def test_a_fork_makes_only_the_copied_blocks_new(browser: Browser, tmp_path: Path) -> None:
    llm, settings = tiny.llm(trace=True, block_size=4), {"block_size": 4}
    llm.generate([list(range(5, 15))], SamplingParams(max_tokens=6, n=3, seed=0, ignore_eos=True))
    trace = llm.trace
    tab = opened(browser, tmp_path, trace, settings)
    new = tab.evaluate("() => document.querySelector('.mp').player.run.steps.map(step => [...step.fresh])")
    tab.close()
    held: set[int] = set()  # after the step before
    forks = 0
    for record, memory, fresh in zip(
        trace.of(StepRecord), History.of(trace, settings["block_size"]).steps, new, strict=True
    ):
        forks += bool(record.copied)
        assert not held & set(fresh) or not record.copied
        assert {to for _, to in record.copied} <= set(fresh)
        held = {block for table in memory.tables.values() for block in table}
    assert forks


@pytest.fixture(scope="module")
def drafted(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trace, Page]]:
    """A run of tinytales with its draft model, and a page that shows it."""
    speculation = {"method": "draft_model", "model": "tinytales-draft", "num_speculative_tokens": 3}
    with LLM(
        "tinytales", trace=True, block_size=8, num_gpu_blocks_override=64, speculative_config=speculation
    ) as llm:
        params = [SamplingParams(temperature=0.7, seed=i, max_tokens=30, ignore_eos=True) for i in range(3)]
        llm.generate(["Once upon a time", "The fox", "A king"], params, use_tqdm=False)
        trace, token_text = llm.trace, llm.tokenizer.token_text
    tab = opened(browser, tmp_path_factory.mktemp("drafted"), trace, {"block_size": 8}, token_text)
    yield trace, tab
    tab.close()


# A mark is drawn over a tint of at most 0.2 of its colour, and all of a finished request is drawn with 0.6.
DRAWN = """async colors => {
  const { player } = document.querySelector(".mp"), text = player.panels.find(panel => panel.name === "text");
  const scale = text.canvas.width / text.canvas.clientWidth, seen = [];
  for (let position = 1; position <= player.run.steps.length; position++) {
    player.seek(position);
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    for (const { piece, x, y, wide } of text.boxes) {
      const [left, top] = [x * scale, y * scale], ink = text.canvas.getContext("2d");
      const { data } = ink.getImageData(left, top, Math.max(1, wide * scale), 17 * scale);
      const color = colors[piece.origin];
      let marked = false;
      for (let i = 0; color && i < data.length; i += 4) {
        marked ||= data[i + 3] > 90 && color.every((channel, at) => Math.abs(channel - data[i + at]) < 30);
      }
      seen.push({ step: player.step, origin: piece.origin, made: piece.step, marked });
    }
  }
  return seen;
}"""
COLORS = {
    "accepted": style.ACCEPTED, "rejected": style.REJECTED, "corrected": style.DECODE, "bonus": style.BONUS,
}  # fmt: skip
CHANNELS = {origin: [int(color[i : i + 2], 16) for i in (1, 3, 5)] for origin, color in COLORS.items()}


def test_the_text_shows_what_became_of_each_draft(drafted: tuple[Trace, Page]) -> None:
    trace, tab = drafted
    drawn = tab.evaluate(DRAWN, CHANNELS)
    for number, record in enumerate(trace.of(StepRecord)):
        new = Counter(piece["origin"] for piece in drawn if piece["step"] == piece["made"] == number)
        tokens = [t for t in trace.of(TokenRecord) if record.start <= t.time <= record.end]
        told = Counter(token.origin for token in tokens)
        assert new == told + Counter(rejected=told["corrected"])
        later = trace.of(StepRecord)[number + 1 : number + 2]
        proposed = sum(part.num_drafts for step in later for part in step.scheduled)
        assert sum(p["origin"] == "draft" for p in drawn if p["step"] == number) == proposed
    for origin in COLORS:
        marked = [piece["marked"] for piece in drawn if piece["origin"] == origin]
        assert len(marked) > 3 and all(marked), origin


def test_drafts_are_told_in_words(drafted: tuple[Trace, Page]) -> None:
    trace, tab = drafted
    legend = tab.locator(".mp-legend").inner_text()
    for words in ("draft to verify", "accepted draft", "rejected draft", "corrected token", "bonus token"):
        assert words in legend
    accepted = [t for t in trace.of(TokenRecord) if t.request_id == "0" and t.origin == "accepted"]
    number = next(i for i, step in enumerate(trace.of(StepRecord)) if step.end >= accepted[2].time)
    end = trace.of(StepRecord)[number].end
    parts = [p for step in trace.of(StepRecord)[: number + 1] for p in step.scheduled if p.request_id == "0"]
    of_step = sum(token.time == accepted[2].time for token in accepted)
    told = tab.evaluate(
        """([id, step]) => {
          const { player } = document.querySelector(".mp"), panels = {};
          for (const panel of player.panels) panels[panel.name] = panel;
          player.seek(step + 1);
          const request = player.run.requests.find(request => request.id === id);
          const pieces = {};
          for (const { shown } of player.run.requests) for (const piece of shown) pieces[piece.origin] ??= piece;
          const owner = piece => player.run.requests.find(request => request.shown.includes(piece));
          const tip = piece => panels.text.tip({ request: owner(piece), piece });
          return {
            tape: panels.tape.tip({ request, step }), text: panels.text.tip({ request }),
            pieces: Object.fromEntries(Object.entries(pieces).map(([origin, piece]) => [origin, tip(piece)])),
          };
        }""",
        ["0", number],
    )
    assert f"{parts[-1].num_drafts} drafts, {of_step} accepted" in told["tape"]
    so_far = sum(part.num_drafts for part in parts), sum(token.time <= end for token in accepted)
    assert "{} drafts, {} accepted".format(*so_far) in told["text"]
    for origin, words in {
        "accepted": "an accepted draft",
        "rejected": "a rejected draft",
        "corrected": "in place of the rejected draft",
        "bonus": "after all drafts were accepted",
    }.items():
        first, second, third = told["pieces"][origin]
        assert words in first and second.endswith("accepted") and third.count("“") == 3


def test_a_rejected_draft_is_in_memory_and_not_published(drafted: tuple[Trace, Page]) -> None:
    trace, tab = drafted
    seen = tab.evaluate(
        """() => {
          const { player } = document.querySelector(".mp"), { run } = player;
          const memory = player.panels.find(panel => panel.name === "memory");
          return run.steps.map(({ step, total }) => {
            player.position = step + 1;
            const blocks = [...Array(total).keys()], counts = blocks.map(block => run.rejectedIn(block, step).length);
            const tips = blocks.filter(block => counts[block]).map(block => memory.tip({ block }).join("; "));
            const lengths = run.requests.map(request => run.length(request, step));
            return { rejected: counts.reduce((a, b) => a + b), lengths, tips };
          });
        }"""
    )
    made = Counter[str]()
    prompts = {record.request_id: record.num_prompt_tokens for record in trace.of(RequestAdded)}
    for record, state in zip(trace.of(StepRecord), seen, strict=True):
        tokens = [t for t in trace.of(TokenRecord) if record.start <= t.time <= record.end]
        made.update(token.request_id for token in tokens)
        drafts = sum(part.num_drafts for part in record.scheduled)
        assert state["rejected"] == drafts - sum(token.origin == "accepted" for token in tokens)
        assert state["lengths"] == [prompts[name] + made[name] - 1 for name in prompts]
        assert all("never published" in tip for tip in state["tips"])
