"""In JupyterLab, in a headless Chromium, a chapter runs from top to bottom and its sliders move its pictures."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install -e '.[course]'")

from playwright.sync_api import Browser, Locator, expect, sync_playwright

from tests.browser.lab import BROWSER_ARGS, PATIENCE, ROOT, OpenNotebook, chromium, clean_copy, jupyterlab

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
