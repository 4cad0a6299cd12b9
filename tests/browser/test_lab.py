"""In JupyterLab, in a headless Chromium, a chapter runs from top to bottom and its sliders move its pictures."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install -e '.[course]'")

from playwright.sync_api import Browser, Locator, expect, sync_playwright

from minillm.course import notebook as nb
from minillm.course import workbook
from tests.browser.lab import BROWSER_ARGS, PATIENCE, ROOT, OpenNotebook, chromium, clean_copy, jupyterlab
from tools.notebooks import METADATA

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if (path := chromium()) is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS, timeout=PATIENCE * 1e3)
        yield browser
        browser.close()


def test_a_chapter_runs_and_its_sliders_move_its_pictures(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".*"))
    copy = clean_copy(folder / "03_kv_cache.ipynb", folder)
    with jupyterlab(folder, tmp_path / "state") as (url, token):
        lab = OpenNotebook(browser, url, token, copy.name)
        lab.run_all()
        assert lab.complaints() == []
        explorers = lab.explorers()
        assert len(explorers) == 3  # what a step computes, its time, the bytes of the cache
        for explorer in explorers:
            move_a_slider(explorer)
        assert lab.complaints() == []
        assert lab.errors == []
        assert lab.requests_elsewhere == []
        lab.page.close()


def test_a_copy_shows_its_figures_and_its_last_link_opens_the_exercises(
    browser: Browser, tmp_path: Path
) -> None:
    folder = tmp_path / "course"
    for name in ("notebooks", "exercises"):
        (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / name / "03_kv_cache.ipynb", folder / name)
    figure = folder / "notebooks" / "figures" / "block.svg"
    figure.parent.mkdir()
    figure.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="123" height="45"></svg>')
    chapter = nb.read(folder / "notebooks" / "03_kv_cache.ipynb")
    chapter["cells"][0]["source"] = "![a block](figures/block.svg)"
    chapter["cells"][1:-1] = []
    nb.write(folder / "notebooks" / "03_kv_cache.ipynb", chapter)
    workbook.prepare(folder)
    with jupyterlab(folder, tmp_path / "state") as (url, token):
        lab = OpenNotebook(browser, url, token, "work/chapters/03_kv_cache.ipynb")
        picture = lab.notebook.get_by_alt_text("a block")
        expect(picture).to_have_js_property("naturalWidth", 123, timeout=PATIENCE * 1e3)
        lab.notebook.get_by_role("link", name="Start the exercises").click()
        # The tab's title says which of the files of this name is open.
        tab = lab.page.locator(".lm-TabBar-tab[title*='Path: work/03_kv_cache.ipynb']")
        tab.wait_for()
        assert lab.errors == []
        lab.page.close()


BURST = """
import time

from minillm.viz.style import Picture
from minillm.viz.widget import Explorer


def draw(x):
    time.sleep(0.2)
    return Picture(figsize=(2 + x / 10, 1), layout="none")


Explorer(draw, x=(0, 60, 0))
"""


def test_a_slider_that_is_dragged_fast_ends_at_its_last_value(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cell = {"cell_type": "code", "id": "burst", "metadata": {}, "source": BURST, "outputs": []}
    document = {"cells": [cell | {"execution_count": None}], "metadata": METADATA}
    (folder / "burst.ipynb").write_text(json.dumps(document | {"nbformat": 4, "nbformat_minor": 5}))
    with jupyterlab(folder, tmp_path / "state") as (url, token):
        lab = OpenNotebook(browser, url, token, "burst.ipynb")
        lab.run_all()
        (explorer,) = lab.explorers()
        picture = explorer.locator("> img.widget-image")
        expect(picture).to_have_attribute("width", str(2 * 96), timeout=PATIENCE * 1e3)
        picture.evaluate(
            """image => {
                window.draws = 0;
                const count = () => { window.draws += 1; };
                new MutationObserver(count).observe(image, {attributes: true, attributeFilter: ["src"]});
            }"""
        )
        handle = explorer.locator(".noUi-handle")
        for _ in range(30):
            handle.evaluate(
                "handle => handle.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
            )
        expect(picture).to_have_attribute("width", str(5 * 96), timeout=PATIENCE * 1e3)
        assert picture.evaluate("image => [image.naturalWidth, image.clientWidth]") == [960, 480]
        assert explorer.locator(".widget-readout").inner_text() == "30"
        assert lab.page.evaluate("window.draws") < 15
        assert lab.complaints() == [] and lab.errors == []
        lab.page.close()


def move_a_slider(explorer: Locator) -> None:
    """Move the first slider one step by the keyboard: its number and the picture change, and the picture is one."""
    picture = explorer.locator("> img.widget-image")
    slider = explorer.locator(".widget-slider").first
    number = slider.locator(".widget-readout")
    before, value = picture.get_attribute("src"), number.inner_text()
    assert before is not None
    slider.locator(".noUi-handle").press("ArrowRight")
    expect(number).not_to_have_text(value, timeout=PATIENCE * 1e3)
    expect(picture).not_to_have_attribute("src", before, timeout=PATIENCE * 1e3)
    expect(picture).to_have_js_property("complete", True, timeout=PATIENCE * 1e3)
    assert picture.evaluate("image => image.naturalWidth") > 400
