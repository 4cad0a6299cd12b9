"""A recording and the player as one piece of HTML: it needs no server, no kernel and no network.

The module and the recording are compressed, as they are text with many repetitions: every current browser can undo
deflate (`DecompressionStream`, 2023).
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from minillm.player.recording import Piece

FOLDER = Path(__file__).parent

# In a notebook's editor the live widget, if there is one, is shown instead; it may come a little later.
_LOADER = """
const place = document.currentScript.parentElement, id = place.dataset.minillmPlayer;
const unpack = async text => {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
};
const alive = () => document.querySelector(`[data-minillm-live="${id}"]`);
let player;
document.addEventListener("minillm-live", event => event.detail === id && player?.destroy());
(async () => {
  if (document.getElementById("jupyter-config-data")) await new Promise(done => setTimeout(done, 3000));
  if (alive()) return;
  const source = new Blob([await unpack(MODULE)], { type: "text/javascript" });
  const { mount } = await import(URL.createObjectURL(source));
  player = mount(place, JSON.parse(await unpack(RECORDING)), OPTIONS);
})();
"""

_MODULE = re.compile(r'unpack\("([\w+/=]+)"\)\], \{ type: "text/javascript" \}')  # as it is in a fragment

# The picture for viewers that run no script follows in an output of its own.
_HIDE = ".jp-OutputArea-child:has(> * [data-minillm-player].on) + .jp-OutputArea-child:has(img) { display: none; }"


@cache
def module(file: str = "player.js") -> str:
    """Return the source of player.js or of another module of this folder."""
    return (FOLDER / file).read_text(encoding="utf-8")


def fragment(
    recording: Piece, options: Mapping[str, Any] | None = None, player_id: str = "", file: str = "player.js"
) -> str:
    """Return HTML that shows `recording` when its script runs, and nothing if it does not run.

    `options` are those of `mount` in the module `file`. A widget of the same `player_id` in the same page replaces it.
    """
    script = (
        _LOADER.replace("MODULE", json.dumps(_packed(module(file))))
        .replace("RECORDING", json.dumps(_packed(json.dumps(recording, separators=(",", ":")))))
        .replace("OPTIONS", json.dumps(dict(options or {})))
    )
    return (
        f'<div data-minillm-player="{escape(player_id)}"><style>{_HIDE}</style><script>'
        f'document.currentScript.parentElement.classList.add("on");(() => {{{script}}})();</script></div>'
    )


def page(
    recording: Piece,
    options: Mapping[str, Any] | None = None,
    title: str = "minillm",
    file: str = "player.js",
) -> str:
    """Return a whole HTML document that shows `recording`."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    style = (
        "<style>:root { color-scheme: light dark; } body { margin: 1rem auto; max-width: 1200px; }</style>"
    )
    body = fragment(recording, options, file=file)
    head += f"<title>{escape(title)}</title>{style}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def refreshed(html: str) -> str:
    """Return a stored fragment with the module's source of today. HTML without a module comes back as it is."""

    def current(match: re.Match[str]) -> str:
        stored = zlib.decompress(base64.b64decode(match[1])).decode()
        modules = [module(path.name) for path in sorted(FOLDER.glob("*.js"))]
        now = next(text for text in modules if text.splitlines()[0] == stored.splitlines()[0])
        return match[0] if now == stored else match[0].replace(match[1], _packed(now))

    return _MODULE.sub(current, html)


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
