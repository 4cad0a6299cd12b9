"""The race in a headless Chromium, as a page of its own."""

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

from playwright.sync_api import Page, sync_playwright

from minillm.player.page import page
from tests.browser.lab import BROWSER_ARGS, PATIENCE, chromium
from tests.player.test_race import STORIES, RaceRecording, run, text

pytestmark = pytest.mark.slow
STATE = """() => [...document.querySelectorAll(".mr-row")].map(
  row => [...row.querySelectorAll(".mr-text span:last-child, .mr-stories span")].map(node => node.textContent))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if (path := chromium()) is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    race = RaceRecording(STORIES, text)
    race.enter("slow", "<b>reads</b> everything again", run(10, 11, 12, 14))
    race.enter("fast", "remembers", run(20, 20.5, 21, 21.5))
    race.extend()
    file = tmp_path_factory.mktemp("race") / "race.html"
    file.write_text(page(race.whole(), {"speed": 1}, file="race.js"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS, timeout=PATIENCE * 1e3)
        tab = browser.new_page()
        tab.errors = []  # type: ignore[attr-defined]
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))  # type: ignore[attr-defined]
        tab.goto(file.as_uri())
        tab.wait_for_selector(".mr-row")
        yield tab
        browser.close()


def seek(tab: Page, seconds: float) -> list[list[str]]:
    tab.evaluate("time => document.querySelector('.mr').race.seek(time)", seconds * 1e6)
    tab.wait_for_timeout(100)
    rows: list[list[str]] = tab.evaluate(STATE)
    return rows


def test_it_shows_each_lane_at_the_same_time_of_its_own_clock(tab: Page) -> None:
    assert seek(tab, 1.2) == [
        ["1 of 3 tokens", "writing …", " a"],
        ["2 of 3 tokens", "writing …", " a"],
    ]
    assert seek(tab, 4) == [
        ["3 of 3 tokens", "✓ all after 4.00 s", " a b"],
        ["3 of 3 tokens", "✓ all after 1.50 s", " a b"],
    ]
    assert seek(tab, 0)[0] == ["0 of 3 tokens", "", ""]
    assert tab.locator(".mr b", has_text="reads").count() == 0, "an idea is never markup"


def test_another_story_is_chosen_by_its_bar(tab: Page) -> None:
    seek(tab, 4)
    tab.locator(".mr-bars > i").nth(1).click()
    tab.wait_for_timeout(100)
    assert [row[2] for row in tab.evaluate(STATE)] == [" b", " b"]
    tab.get_by_label("Story whose text is shown").select_option("0")


def test_it_plays_from_the_start_to_the_end(tab: Page) -> None:
    seek(tab, 4)
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function("() => document.querySelector('.mr').race.position > 2e5")
    tab.wait_for_function("() => !document.querySelector('.mr').race.playing")
    assert tab.evaluate("document.querySelector('.mr').race.position") == 4e6
    assert tab.errors == []  # type: ignore[attr-defined]
