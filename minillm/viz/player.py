"""The player in a notebook: it follows a run while the cell computes, and replays it afterwards.

    player = Player(llm)          # an LLM with trace=True, before or after its run
    with player:                  # shows it, and follows what is generated inside
        llm.generate(prompts)

The output of a cell has three parts, of which a viewer shows one: a widget (JupyterLab, with a kernel), HTML with the
module and the recording inside (exported notebooks, without a kernel), and a picture (GitHub, which runs no scripts).
"""

import base64
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import anywidget
import ipywidgets as widgets
import traitlets
from IPython.display import DisplayHandle, display

from minillm.llm import LLM
from minillm.measure.trace import Trace
from minillm.player.page import fragment, module
from minillm.player.recording import Piece, Recording
from minillm.viz.stand_in import stand_in
from minillm.viz.style import Picture

PANELS = ("tape", "memory", "text", "meters")
SETTINGS = ("block_size", "max_num_batched_tokens", "max_num_seqs", "scheduling_policy", "kv_cache")
INTERVAL = 0.05  # seconds between two pieces


def record(source: LLM | Trace, **settings: int | str) -> Recording:
    """Return the recording of an LLM's trace, or of a trace with these settings (`block_size=16` is the least).

    Raises RuntimeError for an LLM without a trace.
    """
    if isinstance(source, Trace):
        return Recording(source, {"block_size": 16, **settings})
    known = {name: getattr(source.config, name) for name in SETTINGS}
    token_text = None if source.tokenizer is None else source.tokenizer.token_text
    return Recording(source.trace, {**known, **settings}, token_text)


def view(widget: widgets.Widget) -> dict[str, Any]:
    """Return the output that shows a widget, and nothing where there are no widgets."""
    model = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": model, "text/html": ""}


class PlayerWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """The view of a recording in JupyterLab: it holds no state of its own."""

    _esm = module()
    player_id = traitlets.Unicode().tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    # A page that opens later gets the whole recording so far.
    recording = traitlets.Any().tag(sync=True, to_json=lambda live, widget: live.whole())
    live = traitlets.Bool(False).tag(sync=True)


class Growing(Protocol):
    """A recording that can be sent in pieces while it grows."""

    @property
    def num_events(self) -> int: ...

    def extend(self) -> Piece: ...

    def whole(self) -> Piece: ...

    def since(self, start: int, first_word: int) -> Piece: ...


class Live:
    """A recording with its widget: followed while it grows, replayed afterwards, and a picture for other viewers.

    A subclass names the module that draws it, its widget, and makes the picture (`still`).
    """

    file = "player.js"
    widget_type: type[PlayerWidget] = PlayerWidget

    def __init__(self, recording: Growing, options: Mapping[str, Any]) -> None:
        self._recording, self.options = recording, dict(options)
        self.player_id = uuid.uuid4().hex[:12]
        self._lock = threading.Lock()  # held while the recording is read or sent
        recording.extend()
        self.widget = self.widget_type(player_id=self.player_id, options=self.options, recording=self)
        self.widget.on_msg(self._on_message)
        self._stills: list[DisplayHandle] = []
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def still(self) -> Picture:
        """Return the picture for viewers that run no script."""
        raise NotImplementedError

    def whole(self) -> Piece:
        """Return the recording so far as one piece."""
        with self._lock:
            return self._recording.whole()

    def update(self) -> None:
        """Send what is new in the trace to the browser."""
        with self._lock:
            piece = self._recording.extend()
            live = self._thread is not None
            if piece["events"] or self.widget.live != live:
                self.widget.send({"kind": "piece", "piece": piece, "live": live})
        self.widget.live = live

    def follow(self) -> None:
        """Send what is new 20 times a second from now on, from a thread, until `finish`."""
        if self._thread is not None:
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="minillm-player", daemon=True
        )
        self._thread.start()
        self.update()

    def finish(self) -> None:
        """Stop following, and store the whole run in the cell for viewers without a kernel."""
        if self._thread is not None and self._stop is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        self.update()
        for handle, (content, metadata) in zip(self._stills, self._still_contents(), strict=False):
            handle.update(content, metadata=metadata, raw=True)

    def html(self) -> str:
        """Return HTML that replays the run without a kernel."""
        return fragment(self.whole(), self.options, self.player_id, self.file)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(INTERVAL):
            self.update()

    def _on_message(self, _widget: object, content: Mapping[str, Any], _buffers: object) -> None:
        """Send the browser the events that it has missed, from the position that it names."""
        if content.get("kind") == "want":
            with self._lock:
                piece = self._recording.since(int(content["start"]), int(content["first_word"]))
                self.widget.send({"kind": "piece", "piece": piece, "live": self.widget.live})

    def _still_contents(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """Return the outputs for viewers without a kernel, each with its metadata."""
        if not self._recording.num_events:
            return [({"text/html": ""}, {}), ({"text/html": ""}, {})]
        picture = self.still()
        return [
            ({"text/html": self.html()}, {}),
            (
                {"image/png": base64.b64encode(picture.png()).decode()},
                {"image/png": {"width": picture.shown_width}},
            ),
        ]

    def __enter__(self) -> Self:
        self._ipython_display_()
        self.follow()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def show_stills(self) -> None:
        """Show the parts for viewers without a kernel; they hide where the widget lives."""
        self._stills = [
            display(content, metadata=metadata, raw=True, display_id=True)
            for content, metadata in self._still_contents()
        ]

    def _ipython_display_(self) -> None:
        display(view(self.widget), raw=True)
        self.show_stills()


class Player(Live):
    """A recording with its widget. `panels` are some of "tape", "memory", "text" and "meters", in their order.

    `axis` is "steps" or "time" and `position` the step that shows first (the last one by default). For a trace that has
    no LLM, give `block_size` and other engine arguments as `settings`; words are token ids then.
    """

    def __init__(
        self,
        source: LLM | Trace | Recording,
        panels: Sequence[str] = PANELS,
        *,
        axis: str = "steps",
        position: int | None = None,
        speed: float = 1.0,
        **settings: int | str,
    ) -> None:
        for name in panels:
            if name not in PANELS:
                raise ValueError(f"panels has {name!r}: choose from {', '.join(PANELS)}")
        if axis not in ("steps", "time"):
            raise ValueError(f"axis={axis!r}: use 'steps' or 'time'")
        self.recording = source if isinstance(source, Recording) else record(source, **settings)
        options = {"panels": list(panels), "axis": axis, "speed": speed, "position": position}
        super().__init__(self.recording, options)

    def still(self) -> Picture:
        blocks = not {"memory", "meters"}.isdisjoint(self.options["panels"])
        return stand_in(self.recording.trace, self.options["axis"], blocks)
