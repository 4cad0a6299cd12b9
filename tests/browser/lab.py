"""JupyterLab on a folder, and one of its notebooks in a real browser: what a learner has in front of them.

The server has its own configuration, none of the user's, and no learner's data; it ends with the `with` block.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, WebSocket

from minillm.course import notebook as nb

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds: nothing here takes thirty, but the machine may be busy with something else

# No news; and all cells in the page, not only those in view.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# The outputs in which a cell reports an error. The version of JupyterLab decides which of them has the traceback.
COMPLAINTS = ", ".join(f"[data-mime-type='application/vnd.jupyter.{kind}']" for kind in ("stderr", "error"))
BROWSER_ARGS = [
    "--no-sandbox",  # it does not start for root, as whom containers run
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextlib.contextmanager
def jupyterlab(folder: Path, state: Path) -> Iterator[tuple[str, str]]:
    """A server for the notebooks in `folder`, with all that it writes in `state`: (its address, its token)."""
    for name, settings in SETTINGS.items():
        path = state / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "MINILLM_DATA": str(state / "data"),
        "IPYTHONDIR": str(state / "ipython"),
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_DATA_DIR": str(state / "share"),  # a kernel of the user's might be called python3
        "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [
        f"--ServerApp.root_dir={folder}",
        "--LabApp.extension_manager=readonly",
        "--LabApp.news_url=None",
    ]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    # The server ends itself if the tests end without stopping it.
    command += [
        "--MappingKernelManager.cull_idle_timeout=600",
        "--ServerApp.shutdown_no_activity_timeout=900",
    ]
    log = state / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=env, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        # The server looks for a free port by itself and writes down which.
        note = state / "runtime" / f"jpserver-{server.pid}.json"
        deadline = time.monotonic() + PATIENCE
        while not note.exists() or not note.read_text().endswith("}"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        info = json.loads(note.read_text())
        yield info["url"], info["token"]
    finally:
        stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server: asked first, so that it ends its kernels; else killed, and its kernels miss it and go."""
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def clean_copy(path: Path, folder: Path) -> Path:
    """A copy of a notebook without outputs, so that whatever is seen was made there."""
    document = nb.read(path)
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    folder.mkdir(exist_ok=True)
    copy = folder / path.name
    copy.write_text(json.dumps(document))
    return copy


class OpenNotebook:
    """A notebook open in JupyterLab, and what the browser complained about since."""

    def __init__(self, browser: Browser, url: str, token: str, name: str, *, height: int = 1200) -> None:
        self.errors: list[str] = []
        self.requests_elsewhere: list[str] = []
        self._url = url
        self.page: Page = browser.new_page(viewport={"width": 1400, "height": height})
        self.page.set_default_timeout(PATIENCE * 1e3)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("websocket", self._request)
        self.page.goto(f"{url}lab/workspaces/test/tree/{quote(name)}?reset&token={token}")
        self.notebook: Locator = self.page.locator(".jp-NotebookPanel .jp-Notebook")
        # The notebook's own sign is idle too early; the status bar's is right.
        self.page.get_by_role("button", name="Python 3 (ipykernel) | Idle").wait_for()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request | WebSocket) -> None:
        here = (self._url, self._url.replace("http", "ws", 1), "data:", "blob:")
        if not request.url.startswith(here):
            self.requests_elsewhere.append(request.url)

    def run_all(self) -> None:
        """Run all cells by the menu, and wait until the last has run, or one has complained."""
        self.page.locator("#jp-MainMenu").get_by_text("Run", exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
        self.page.wait_for_function(
            """complaints => document.querySelector(complaints) ||
                [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].every(cell =>
                    !cell.querySelector(".jp-InputArea-editor .cm-content")?.textContent.trim() ||
                    /\\d/.test(cell.querySelector(".jp-InputPrompt").textContent))""",
            arg=COMPLAINTS,
        )

    def complaints(self) -> list[str]:
        """Every traceback and every output on stderr, as text."""
        return self.notebook.locator(COMPLAINTS).all_inner_texts()

    def explorers(self) -> list[Locator]:
        """The pictures with sliders (minillm.viz.widget)."""
        return self.notebook.locator(".widget-vbox:has(> img.widget-image)").all()
