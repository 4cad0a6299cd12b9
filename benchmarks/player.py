"""How many frames per second does the player draw for 60 requests and 500 steps?

    python benchmarks/player.py

A headless Chromium without a GPU plays the recording of a real run at 60 steps per second, so almost every frame shows
another step. The frames per second include what the browser does; the milliseconds per frame are the player's own code.
It exits with status 77 where there is no Chromium.
"""

import random
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from _rows import arguments, report

from minillm import LLM, SamplingParams
from minillm.measure.trace import StepRecord
from minillm.player.page import page
from minillm.player.recording import Recording

REQUESTS, STEPS, SECONDS = 60, 500, 6
WORDS = "the fox and a small boat went over one blue hill to see who had taken his red ball".split()
PLAY = """async seconds => {
  const { player } = document.querySelector(".mp");
  player.seek(0);
  player.speed = 5;
  player.play();
  await new Promise(done => setTimeout(done, 500));
  Object.assign(player.stats, { frames: 0, drawing: 0 });
  const began = performance.now();
  await new Promise(done => setTimeout(done, seconds * 1e3));
  const passed = (performance.now() - began) / 1e3;
  return [player.stats.frames / passed, player.stats.drawing / player.stats.frames];
}"""


def run() -> LLM:
    """Return an LLM after a run of that many requests and steps."""
    llm = LLM(
        "tinytales", trace=True, max_model_len=1024, num_gpu_blocks_override=600, max_num_batched_tokens=128
    )
    dice = random.Random(0)
    prompts = [" ".join(dice.choices(WORDS, k=dice.randint(8, 60))) for _ in range(REQUESTS)]
    lengths = [STEPS, *(dice.randint(STEPS // 4, STEPS) for _ in prompts[1:])]
    params = [SamplingParams(max_tokens=n, seed=i, ignore_eos=True) for i, n in enumerate(lengths)]
    llm.generate(prompts, params, use_tqdm=False)
    return llm


def frames(html: Path, browser: str) -> tuple[float, float]:
    """Return frames per second, and milliseconds of drawing per frame."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        tab = chromium.new_page(viewport={"width": 1200, "height": 1000})
        tab.goto(html.as_uri())
        tab.wait_for_selector(".mp canvas")
        per_second, drawing = tab.evaluate(PLAY, SECONDS)
        chromium.close()
        return per_second, drawing


def main() -> None:
    args = arguments(__doc__)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or find_spec("playwright") is None:
        print("This benchmark needs a Chromium on the path (apt-get install chromium) and playwright.")
        sys.exit(77)
    llm = run()
    settings = {
        "block_size": llm.config.block_size,
        "max_num_batched_tokens": llm.config.max_num_batched_tokens,
    }
    recording = Recording(llm.trace, settings, llm.tokenizer.token_text)
    recording.extend()
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "player.html"
        html.write_text(page(recording.whole()))
        per_second, drawing = frames(html, browser)
        size = html.stat().st_size / 1e3
    what = f"{REQUESTS} requests, {len(llm.trace.of(StepRecord))} steps"
    report(
        [
            {
                "name": f"frames per second, {what}",
                "value": per_second,
                "unit": "1/s",
                "floor": 30,
                "goal": 60,
            },
            {"name": f"drawing per frame, {what}", "value": drawing, "unit": "ms"},
            {"name": f"HTML with module and recording, {what}", "value": size, "unit": "kB", "ceiling": 300},
        ],
        args,
    )


if __name__ == "__main__":
    main()
