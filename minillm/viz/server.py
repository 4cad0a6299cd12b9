"""The live page of a server, inside a notebook.

    page = show(server)           # a Server whose LLM was made with trace=True
    with page:                    # shows it, and what is asked inside is in the picture
        ...

The page is a frame. It appears only where the browser runs on the machine of the server, while the server answers.
Other viewers, such as GitHub, see a picture of what the engine did.
"""

import base64
import json
from html import escape
from typing import Any, Self

from IPython.display import DisplayHandle, display

from minillm.measure.trace import Trace
from minillm.serving.server import Server
from minillm.viz.stand_in import stand_in

LOCAL = ("localhost", "127.0.0.1", "[::1]")

_LOADER = """
const place = document.currentScript.parentElement;
(async () => {
  if (!LOCAL.includes(location.hostname)) return;
  await fetch(URL_ + "/health", { mode: "no-cors" });
  const frame = document.createElement("iframe");
  frame.src = URL_;
  frame.title = "The live page of the server";
  frame.style.cssText = "width: 100%; height: HEIGHTpx; border: 0; border-radius: 8px;";
  place.append(frame);
  place.classList.add("on");
})().catch(() => {}); // the server has stopped: the picture shows
"""
_HIDE = ".jp-OutputArea-child:has(> * [data-minillm-server].on) + .jp-OutputArea-child:has(img) { display: none; }"


def show(server: Server, height: int = 720) -> "ServerPage":
    """Return the live page of a running server, `height` pixels high, to be displayed.

    Raises ValueError if no LLM of the server has a trace, from which the picture is drawn.
    """
    traces = [replica.llm.trace for replica in server.registry if replica.llm.config.trace]
    if not traces:
        raise ValueError(
            "the picture of the live page is drawn from a trace, and no LLM of this server has one: "
            "make the LLM with trace=True"
        )
    return ServerPage(server.url, traces[0], height)


class ServerPage:
    """The page at `url` as the output of a cell; the picture is drawn from `trace`."""

    def __init__(self, url: str, trace: Trace, height: int) -> None:
        self.url, self.trace, self.height = url, trace, height
        self._picture: DisplayHandle | None = None

    def html(self) -> str:
        """Return HTML that shows the page when its script runs and the server answers, and nothing if not."""
        script = (
            _LOADER.replace("LOCAL", json.dumps(LOCAL))
            .replace("URL_", json.dumps(self.url).replace("</", "<\\/"))
            .replace("HEIGHT", str(self.height))
        )
        return f'<div data-minillm-server="{escape(self.url)}"><style>{_HIDE}</style><script>{script}</script></div>'

    def finish(self) -> None:
        """Draw the picture again, with everything that has happened."""
        if self._picture is not None:
            content, metadata = self._still()
            self._picture.update(content, metadata=metadata, raw=True)

    def _still(self) -> tuple[dict[str, str], dict[str, Any]]:
        if not self.trace:
            return {"text/html": ""}, {}
        picture = stand_in(self.trace)
        encoded = base64.b64encode(picture.png()).decode()
        return {"image/png": encoded}, {"image/png": {"width": picture.shown_width}}

    def _ipython_display_(self) -> None:
        display({"text/html": self.html()}, raw=True)
        content, metadata = self._still()
        self._picture = display(content, metadata=metadata, raw=True, display_id=True)

    def __enter__(self) -> Self:
        self._ipython_display_()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
