"""The control room: an engine that runs while its user types prompts, adds ten at once, and turns its knobs.

    room = ControlRoom(llm)       # the cell returns at once; the engine runs in its thread
    room                          # shows the controls and the player
    room.close()                  # ends the thread, and stores the run for viewers without a kernel

`ControlRoom(llm, scheduler=MyScheduler)` has a switch between the learner's part and the package's. This
file has the controls; the room behind them is in room.py.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from minillm.engine.request import RequestOutput
from minillm.llm import DRAFT_MODELS, LLM
from minillm.viz.player import PANELS, Player, view
from minillm.viz.room import Room

PACES = [("slow: 3 steps per second", 3.0), ("12 steps per second", 12.0), ("40 steps per second", 40.0)]
SPECULATION = [("none", None), ("n-grams", "ngram"), ("suffix tree", "suffix")]
BUDGETS = [8, 16, 32, 64, 128, 256]
HINT = "Type the beginning of a story, or add ten at once."


class ControlRoom:
    """A `Room` with its controls and a `Player` that follows it. The arguments are those of `Room`."""

    def __init__(self, llm: LLM, *, panels: Sequence[str] = PANELS, **arguments: Any) -> None:
        self._message = widgets.HTML(escape(HINT))
        self.room = Room(llm, on_message=self._show, **arguments)
        self.player = Player(self.room.llm, panels)
        self.box = widgets.VBox([self._prompt_row(), self._settings(), self._message, self.player.widget])
        self.player.follow()

    def add(self, prompt: str, **params: Any) -> bool:
        """Submit a prompt, as the button does."""
        return self.room.add(prompt, **params)

    def add_ten(self) -> None:
        """Submit ten openings of stories, as the button does."""
        self.room.add_ten()

    def wait(self) -> list[RequestOutput]:
        """Return the outputs once all requests have finished."""
        return self.room.wait()

    def close(self) -> None:
        """End the threads, and show the whole run to replay."""
        if not self.room.closed:
            self.room.close()
            self.player.finish()
            for control in self._controls:
                control.disabled = True
            self._show("Closed. The run stays here to replay.")
            self.player.show_stills()

    def _ipython_display_(self) -> None:
        display(view(self.box), raw=True)

    def _show(self, message: str) -> None:
        self._message.value = f"<b>{escape(message)}</b>"
        if self.room.own and self.mine.value != self.room.mine:  # a fault has put the package's part back
            self.mine.value = self.room.mine

    def _prompt_row(self) -> widgets.HBox:
        prompt = widgets.Text(placeholder=HINT, layout=widgets.Layout(flex="1 1 16em"))
        add = widgets.Button(description="Add", button_style="primary", layout=widgets.Layout(width="6em"))
        ten = widgets.Button(description="Add ten", layout=widgets.Layout(width="7em"))

        def submit(_: object = None) -> None:
            if prompt.value.strip() and self.room.add(prompt.value):
                prompt.value = ""

        def on_message(_: object, content: dict[str, Any], _buffers: object) -> None:
            if content.get("event") == "submit":  # the Enter key
                submit()

        add.on_click(submit)
        prompt.on_msg(on_message)
        ten.on_click(lambda _: self.room.add_ten())
        self._controls = [prompt, add, ten]
        return widgets.HBox([prompt, add, ten], layout=widgets.Layout(flex_flow="row wrap"))

    def _settings(self) -> widgets.HBox:
        now = self.room.setting
        budgets = sorted({*BUDGETS, now("max_num_batched_tokens")})
        most = max(96, now("num_gpu_blocks_override"))
        self.settings: dict[str, widgets.Widget] = {
            "max_num_batched_tokens": _control(widgets.SelectionSlider, "budget", options=budgets),
            "num_gpu_blocks_override": _control(widgets.IntSlider, "blocks", min=8, max=most),
            "max_num_seqs": _control(widgets.IntSlider, "max running", min=1, max=24),
            "scheduling_policy": _control(widgets.Dropdown, "policy", options=["fcfs", "priority", "static"]),
            "enable_prefix_caching": _control(widgets.Checkbox, "prefix caching"),
        }
        for name, control in self.settings.items():
            control.value = now(name)
            control.observe(self._changer(name), names="value")
        pace = _control(widgets.Dropdown, "pace", options=[*PACES, ("as fast as it can", None)])
        pace.value = self.room.steps_per_second
        pace.observe(lambda change: setattr(self.room, "steps_per_second", change["new"]), names="value")
        shown = [*self.settings.values(), *self._speculation(), pace]
        if self.room.own:
            shown.append(self._switch())
        self._controls += shown
        return widgets.HBox(shown, layout=widgets.Layout(flex_flow="row wrap"))

    def _speculation(self) -> list[widgets.Widget]:
        """Return the choice of a proposer, and of the number of drafts per request and step."""
        draft_model = DRAFT_MODELS.get(self.room.llm.name)
        methods = [*SPECULATION, *([("draft model", "draft_model")] if draft_model else [])]
        self.method = _control(widgets.Dropdown, "speculation", options=methods)
        self.num_drafts = _control(widgets.IntSlider, "drafts", min=1, max=8)

        def show() -> None:
            now = self.room.llm.config.speculation
            self.method.value = None if now is None else now.method
            self.num_drafts.disabled = now is None
            if now is not None:
                self.num_drafts.value = now.num_speculative_tokens

        def change(_: object) -> None:
            wanted: dict[str, Any] | None = None
            if self.method.value is not None:
                wanted = {"method": self.method.value, "num_speculative_tokens": self.num_drafts.value}
            if self.method.value == "draft_model":
                wanted = {**(wanted or {}), "model": draft_model}
            if wanted != self.room.setting("speculative_config"):
                self._change("speculative_config", wanted, f"speculation is {self.method.label} now.")
                show()

        self.num_drafts.value = 4
        show()
        for control in (self.method, self.num_drafts):
            control.observe(change, names="value")
        return [self.method, self.num_drafts]

    def _switch(self) -> widgets.ToggleButtons:
        whose = " and ".join(self.room.own)
        self.mine = _control(
            widgets.ToggleButtons, whose, options=[("the package's", False), ("mine", True)], value=False
        )
        self.mine.style.button_width = "8em"

        def switch(change: dict[str, Any]) -> None:
            if change["new"] != self.room.mine and not self.room.use(change["new"]):
                self.mine.value = self.room.mine

        self.mine.observe(switch, names="value")
        return self.mine

    def _changer(self, name: str) -> Callable[[dict[str, Any]], None]:
        def change(change: dict[str, Any]) -> None:
            value = change["new"]
            if value != self.room.setting(name) and not self._change(name, value, f"{name} is {value} now."):
                self.settings[name].value = self.room.setting(name)

        return change

    def _change(self, name: str, value: Any, said: str) -> bool:
        """Change an engine argument. Return False, with the room's message, if that is refused."""
        if not self.room.change(**{name: value}):
            return False
        count = self.room.num_unfinished
        moved = f" The engine was rebuilt, and {count} unfinished requests go on in it." if count else ""
        self._show(said + moved)
        return True


def _control(kind: type, description: str, **arguments: Any) -> widgets.Widget:
    """Return a control; a slider reports its value only when it is released."""
    if "Slider" in kind.__name__:
        arguments["continuous_update"] = False
    style, layout = {"description_width": "7.5em"}, widgets.Layout(width="23em")
    return kind(description=description, style=style, layout=layout, **arguments)
