"""The live page in a headless Chromium: three users, stop, a phone, markup in prompts, a restart."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
pytest.importorskip("fastapi", reason="the server is not installed: pip install -e '.[serve]'")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from minillm import LLM
from minillm.measure.trace import RequestAdded, RequestFinished, RequestState, Snapshot, TokenRecord, Trace
from minillm.player.page import FOLDER
from minillm.player.recording import Recording
from minillm.serving.registry import Registry
from minillm.serving.server import Server
from minillm.serving.settings import Settings
from tests.browser.lab import BROWSER_ARGS, PATIENCE, OpenNotebook, chromium, jupyterlab
from tests.browser.test_player import notebook
from tests.engine import tiny
from tests.player.test_recording import RUNS, tokenizer, watched

pytestmark = pytest.mark.slow

PLAYER = "document.querySelector('.mp').player"
STATE = f"""() => {{
  const {{ run, position, following }} = {PLAYER};
  return {{ following, behind: run.steps.length - position, ids: run.requests.map(one => one.id),
    texts: run.requests.map(one => run.text(one.tokens)), finished: run.requests.map(one => one.finish?.reason ?? null),
    held: run.at(run.steps.length - 1).total - run.at(run.steps.length - 1).free }};
}}"""
MARKUP = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script><b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if (path := chromium()) is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS, timeout=PATIENCE * 1e3)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tinytales", max_model_len=512, max_num_seqs=8) as llm:
        yield llm


@pytest.fixture(scope="module")
def server(llm: LLM) -> Iterator[Server]:
    with Server(llm) as server:
        yield server


Opener = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Opener]:
    """Open the page as another user; in the end, no page may have complained or asked another server."""
    contexts, errors, elsewhere = [], list[str](), list[str]()

    def open_page(url: str = server.url, width: int = 1280, height: int = 800, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: "Security Policy" in message.text and errors.append(message.text))
        page.on("request", lambda request: request.url.startswith(url) or elsewhere.append(request.url))
        page.goto(url)
        page.wait_for_selector(".mp canvas, #key:not([hidden])")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == [] and [url for url in elsewhere if not url.startswith("data:")] == []


def ask(page: Page, text: str, max_tokens: int = 40) -> None:
    page.fill("#max-tokens", str(max_tokens))
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def never_end(page: Page) -> None:
    """Let the requests of a page run until their limit of tokens."""
    added = '"ignore_eos":true,'
    page.route(
        "**/v1/**", lambda route: route.continue_(post_data="{" + added + (route.request.post_data or "")[1:])
    )


def answered(page: Page) -> str:
    page.wait_for_selector(".meta")
    return page.locator(".assistant").last.inner_text()


def test_three_users_at_once_get_their_own_texts_and_see_each_other(open_page: Opener, llm: LLM) -> None:
    users = [open_page() for _ in range(3)]
    questions = [
        "Tell me a story about a fox.",
        "Tell me a story about the sea.",
        "Where does the bear live?",
    ]
    before = set(users[0].evaluate(STATE)["ids"])
    for page, question in zip(users, questions, strict=True):
        page.fill("#max-tokens", "120")
        page.fill("#temperature", "0")
        page.type("#prompt", question)
    for page in users:
        page.press("#prompt", "Enter")
    for page in users:
        page.wait_for_selector(".meta")
    answers = [(page.locator(".assistant").text_content() or "").replace("\n", "⏎") for page in users]
    for page, question, answer in zip(users, questions, answers, strict=True):
        assert page.locator(".user").all_inner_texts() == [question]
        page.wait_for_function(f"() => {PLAYER}.run.requests.slice(-3).every(request => request.finish)")
        state = page.evaluate(STATE)
        new = [text for name, text in zip(state["ids"], state["texts"], strict=True) if name not in before]
        assert len(new) == 3, "the player shows all three"
        assert sum(question in text and answer in text for text in new) == 1
        assert page.locator(".mp-title").filter(has_text="Requests over time").is_visible()
    overlap = users[0].evaluate(f"() => Math.max(...{PLAYER}.run.steps.map(step => step.batch))")
    assert overlap > 1, "they shared steps"
    assert "tokens" in users[0].locator(".meta").inner_text()


def test_a_conversation_has_several_turns(open_page: Opener) -> None:
    page = open_page()
    sent: list[str] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.post_data or ""))
    ask(page, "Tell me a story.", 10)
    first = answered(page)
    page.locator(".meta").evaluate("node => node.remove()")
    ask(page, "And then?", 10)
    answered(page)
    assert first in sent[-1].encode().decode("unicode_escape", "ignore") or first[:8] in sent[-1]
    assert '"role":"assistant"' in sent[-1] and page.locator(".user").count() == 2
    page.click("#clear")
    assert page.locator(".user").count() == 0 and page.locator(".hello button").count() == 3
    page.locator(".hello button").first.click()
    assert answered(page)


def test_a_text_is_continued(open_page: Opener) -> None:
    page = open_page()
    page.click("#continue")
    ask(page, "Once upon a time there was a", 6)
    page.wait_for_selector(".meta")
    story = page.locator(".story").inner_text()
    assert story.startswith("Once upon a time there was a") and page.locator(".made").count() == 1
    page.click("#send")  # an empty box: only continue
    page.wait_for_selector(".meta")
    assert page.locator(".story").inner_text().startswith(story) and page.locator(".made").count() == 2


def test_stop_ends_the_request_and_its_blocks_return(open_page: Opener, llm: LLM) -> None:
    page = open_page()
    never_end(page)
    ask(page, "Tell me a very long story.", 480)
    page.wait_for_function("() => document.querySelector('.assistant').textContent.length > 20")
    page.click("#stop")
    page.wait_for_function(f"() => {PLAYER}.run.requests.at(-1).finish?.reason === 'abort'")
    assert not llm.engine.has_unfinished and llm.engine.memory.num_free == llm.engine.memory.num_blocks
    assert page.locator(".meta").inner_text() == "stopped" and page.locator("#send").is_visible()
    assert 20 < len(page.locator(".assistant").inner_text()) < 2000


def test_eight_more_requests_fill_the_batch_and_stop_ends_them_too(open_page: Opener, llm: LLM) -> None:
    page = open_page()
    never_end(page)
    page.fill("#max-tokens", "400")
    page.click("#crowd")
    page.wait_for_function(f"() => {PLAYER}.run.steps.at(-1)?.batch === 8")
    page.click("#stop")
    page.wait_for_function(
        f"() => {PLAYER}.run.requests.slice(-8).every(one => one.finish?.reason === 'abort')"
    )
    assert not llm.engine.has_unfinished


@pytest.mark.parametrize("mode", ["chat", "continue"])
def test_markup_in_a_prompt_or_an_answer_is_text(open_page: Opener, mode: str) -> None:
    page = open_page()
    # The model's answer is replaced on its way to the page.
    part = {"chat": '"delta": {"content": %s}', "continue": '"text": %s'}[mode]
    chunk = '{"choices": [{"index": 0, %s, "finish_reason": %s}]}'
    quoted = '"' + MARKUP + '"'
    body = (
        "".join(f"data: {chunk % (part % quoted, end)}\n\n" for end in ("null", '"stop"'))
        + "data: [DONE]\n\n"
    )
    page.route("**/v1/**", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    page.click(f"#{mode}")
    ask(page, MARKUP)
    page.wait_for_selector(".meta")
    assert page.locator("#log").inner_text().count(MARKUP) == 3
    assert page.locator("#log :is(img, script, b)").count() == 0 and page.evaluate("window.hacked") is None


def test_markup_reaches_the_player_and_other_users_as_text(open_page: Opener) -> None:
    one, other = open_page(), open_page()
    ask(one, MARKUP, 3)
    answered(one)
    for page in (one, other):
        page.wait_for_function(f"() => {PLAYER}.run.requests.at(-1).finish")
        assert MARKUP in page.evaluate(STATE)["texts"][-1]
        canvas = page.locator(".mp-text canvas")
        canvas.hover(position={"x": 20, "y": 10})
        page.wait_for_timeout(100)
        assert (
            page.evaluate("window.hacked") is None
            and page.locator("#engine img, #engine script").count() == 0
        )


@pytest.mark.parametrize(("status", "headers", "words"), [
    (429, {"Retry-After": "7"}, "The queue is full. Try again in 7 s."),
    (400, {}, "The queue is full."),
    (500, {}, "The queue is full."),
])  # fmt: skip
def test_an_error_is_said_and_the_prompt_goes_back_into_the_box(
    open_page: Opener, status: int, headers: dict[str, str], words: str
) -> None:
    page = open_page()
    body = '{"error": {"message": "The queue is full."}}'
    page.route("**/v1/**", lambda route: route.fulfill(status=status, headers=headers, body=body))
    ask(page, "Tell me a story.")
    assert page.wait_for_selector(".error").inner_text() == words
    assert page.input_value("#prompt") == "Tell me a story." and page.locator(".user").count() == 0
    page.unroute("**/v1/**")
    page.press("#prompt", "Enter")
    assert answered(page)


def test_a_conversation_that_does_not_fit_is_refused_in_words(open_page: Opener) -> None:
    page = open_page()
    ask(page, "a story " * 600, 100)
    assert "prompt tokens and max_tokens=100" in page.wait_for_selector(".error").inner_text()


def test_a_phone_shows_one_column_and_never_scrolls_sideways(open_page: Opener) -> None:
    page = open_page(width=360, height=740, has_touch=True, is_mobile=True)
    ask(page, "Where does the bear live? " + "supercalifragilistic" * 10, 20)
    answered(page)
    for width in (320, 360, 699):
        page.set_viewport_size({"width": width, "height": 740})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        talk, engine = page.locator("#talk").bounding_box(), page.locator("#engine").bounding_box()
        assert talk and engine and engine["y"] >= talk["y"] + talk["height"] and talk["x"] == engine["x"]
    page.set_viewport_size({"width": 701, "height": 740})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 701


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_have_contrast_in_both_schemes(open_page: Opener, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    ask(page, "Who is there?", 5)
    answered(page)
    for selector in (
        ".user",
        ".assistant",
        ".meta",
        "#privacy",
        ".modes button[aria-pressed='false']",
        "#send",
    ):
        ratio = page.locator(selector).first.evaluate(CONTRAST)
        assert ratio >= 4.5, (selector, ratio)
    page.click("#theme")
    page.click("#theme")
    page.wait_for_function(f"{PLAYER}.box.classList.contains('mp-dark')")


CONTRAST = """node => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const linear = c => c <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = color => numbers(color).slice(0, 3)
    .reduce((sum, c, i) => sum + linear(c / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = node;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const both = [light(getComputedStyle(node).color), light(getComputedStyle(behind).backgroundColor)];
  const [a, b] = both.sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


def test_the_page_connects_again_after_the_server_has_restarted(open_page: Opener, llm: LLM) -> None:
    with Server(llm) as first:
        page = open_page(first.url)
        ask(page, "Tell me a story.", 10)
        answered(page)
    page.wait_for_selector("#status.lost")
    ask(page, "And then?", 10)
    assert "cannot be reached" in page.wait_for_selector(".error").inner_text()
    with Server(llm, port=int(first.url.rsplit(":", 1)[1])):
        page.wait_for_selector("#status.on")
        page.press("#prompt", "Enter")
        page.wait_for_function(
            "() => document.querySelectorAll('.assistant').length === 2 && !document.querySelector('.busy')"
        )
        page.wait_for_function(f"() => {PLAYER}.run.requests.at(-1)?.finish")
        assert page.evaluate(STATE)["following"]


def test_a_server_with_a_key_asks_for_it(open_page: Opener, llm: LLM) -> None:
    with Server(Registry({"tinytales": llm}), settings=Settings(api_key="sesame")) as server:
        page = open_page(server.url)
        for key in ("wrong", "sesame"):
            page.fill("#key-value", key)
            page.press("#key-value", "Enter")
            page.wait_for_selector("#key:not([hidden])" if key == "wrong" else ".mp canvas")
        expect(page.locator("#key")).to_be_hidden()
        ask(page, "Who is there?", 5)
        assert answered(page)


def test_a_model_without_a_chat_template_only_continues_and_another_can_be_chosen(
    open_page: Opener, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny.llm() as plain, Server(Registry({"plain": plain, "own/tales": [llm, llm.variant()]})) as server:
        assert plain.tokenizer is not None
        monkeypatch.setattr(plain.tokenizer.wrapped, "chat_template", None)  # tests share this tokenizer
        page = open_page(server.url)
        assert not page.locator("#chat").is_visible() and page.locator("#send").inner_text() == "Continue"
        page.select_option("#model", "own/tales")
        assert page.locator("#chat").is_visible()
        page.select_option("#replica", "1")
        page.wait_for_selector("#status.on")
        ask(page, "Who is there?", 5)
        assert answered(page)


def test_a_long_run_keeps_the_playhead_where_the_reader_has_put_it(open_page: Opener, llm: LLM) -> None:
    with Server(llm) as server:
        feed = server.app.state.live.feeds["tinytales"][0]
        feed._span = 700
        page = open_page(server.url)
        never_end(page)
        ask(page, "Tell me a story.", 400)
        page.wait_for_selector(".meta")
        page.wait_for_function(f"() => {PLAYER}.run.firstStep > 100")
        assert page.evaluate(f"{PLAYER}.run.steps.length") < 250
        page.evaluate(f"() => {PLAYER}.seek({PLAYER}.run.steps.length - 3)")
        seen = page.evaluate(f"{PLAYER}.run.firstStep + {PLAYER}.position")
        first = page.evaluate(f"{PLAYER}.run.firstStep")
        ask(page, "And then?", 60)
        page.wait_for_function(f"first => {PLAYER}.run.firstStep > first", arg=first)
        first, now = page.evaluate(f"[{PLAYER}.run.firstStep, {PLAYER}.run.firstStep + {PLAYER}.position]")
        assert now == max(first, seen)
        assert not page.evaluate(f"{PLAYER}.following")


SAME = """async ([source, whole, late]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { Run } = await import(url), [early, from] = [new Run(), new Run()];
  early.append(whole);
  from.append(late);
  const lost = from.firstStep - early.firstStep, different = [];
  for (let step = -1; step < from.steps.length; step++) {
    for (const request of from.requests) {
      const other = early.requests.findLast(one => one.id === request.id);
      const state = (run, one, at) => JSON.stringify([run.table(one, at), run.numTokens(one, at), one.color,
        step < 0 ? 0 : run.doing(one, at).replace("preempted", "waiting"),
        run.table(one, at).length ? run.length(one, at) : 0]);
      const [a, b] = [state(from, request, step), state(early, other, step + lost)];
      if (request.step <= step && a !== b) different.push([step, request.id, a, b]);
    }
    for (let block = 0; step >= 0 && block < early.at(0).total; block++) {
      if (from.isKnown(block, step) !== early.isKnown(block, step + lost)) different.push([step, block]);
    }
  }
  return { different, steps: from.steps.length, lost };
}"""


@pytest.mark.parametrize("kind", [kind for kind in RUNS if kind not in ("rebuilt", "static")])
def test_the_players_state_after_a_snapshot_is_that_of_the_whole_run(browser: Browser, kind: str) -> None:
    trace, snapshots = watched(kind)
    size = {"block_size": RUNS[kind].get("block_size", 16)}
    whole = Recording(trace, size, tokenizer().token_text).extend()
    page = browser.new_page()
    source = Path(FOLDER / "player.js").read_text()
    for middle in snapshots[1:-1]:
        growing = Trace()
        rolling = Recording(growing, size, tokenizer().token_text, rolling=True)
        # The recording begins with the last snapshot but one.
        growing += trace[: next(i for i in snapshots if i > middle) + 12]
        rolling.extend()
        piece = rolling.whole()
        assert piece["events"][0][2] == trace[middle].step
        result = page.evaluate(SAME, [source, whole, piece])
        assert result["different"] == [] and result["steps"] > 0
    assert result["lost"] > 0
    page.close()


NOTEBOOK = """
from minillm import LLM, SamplingParams
from minillm.serving.server import Server
from minillm.viz.server import show

llm = LLM("tinytales", trace=True, max_model_len=512)
server = Server(llm).start()
with show(server, height=500) as page:
    llm.generate(["Once upon a time"] * 3, SamplingParams(max_tokens=20, ignore_eos=True), use_tqdm=False)
"""


def test_a_notebook_shows_the_page_while_the_server_runs_and_then_a_picture(
    browser: Browser, tmp_path: Path
) -> None:
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install -e '.[course]'")
    path = tmp_path / "live.ipynb"
    path.write_text(json.dumps(notebook(NOTEBOOK)))
    with jupyterlab(tmp_path, tmp_path / "state") as (url, token):
        lab = OpenNotebook(browser, url, token, path.name)
        lab.run_all()
        frame = lab.page.frame_locator("iframe[title='The live page of the server']")
        ask_in_frame = frame.locator("#prompt")
        ask_in_frame.fill("Who is there?")
        ask_in_frame.press("Enter")
        frame.locator(".meta").wait_for()
        frame.locator(".mp-memory canvas").wait_for()
        assert lab.page.locator(".jp-OutputArea img:visible").count() == 0 and lab.complaints() == []
        lab.page.locator(".jp-NotebookPanel-toolbar [data-command='docmanager:save']").click()
        lab.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
        lab.page.wait_for_timeout(1000)
        lab.page.close()
    outputs = json.loads(path.read_text())["cells"][0]["outputs"]
    assert "image/png" in outputs[-1]["data"] and "iframe" in "".join(outputs[0]["data"]["text/html"])


def test_a_request_after_a_snapshot_has_the_number_that_the_recording_says(browser: Browser) -> None:
    trace = Trace()
    recording = Recording(trace, {"block_size": 4}, rolling=True)
    trace += [
        Snapshot(0.0, 0, []),
        *(RequestAdded(0.0, name, 1, [number]) for number, name in enumerate("abc")),
    ]
    recording.extend()
    trace += [RequestFinished(0.0, "b", "length"), RequestFinished(0.0, "c", "length")]
    trace += [Snapshot(0.0, 1, [RequestState("a", 1, [0], 0, [])]), RequestAdded(0.0, "d", 1, [5])]
    trace += [TokenRecord(0.0, "d", 0, 6), Snapshot(0.0, 2, [])]
    recording.extend()
    page = browser.new_page()
    source = Path(FOLDER / "player.js").read_text()
    texts = """async ([source, piece]) => {
      const { Run } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
      const run = new Run();
      run.append(piece);
      return run.requests.map(request => [request.id, run.text(request.tokens)]);
    }"""
    assert page.evaluate(texts, [source, recording.whole()]) == [["a", "0"], ["d", "56"]]
    page.close()
