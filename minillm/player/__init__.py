"""The player: one live picture of a run, drawn in the browser from the engine's own trace.

`recording.py` turns a trace into compact JSON, `player.js` draws it, `page.py` puts both into one piece of HTML that
needs no server. `race.py` and `race.js` do the same for several runs side by side. There is no framework and nothing is
loaded from elsewhere.
"""
