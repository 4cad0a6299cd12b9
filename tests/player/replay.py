"""A second reader of recordings: the format of recording.py, undone in Python."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Step:
    """A step as the player knows it: the parts and block tables of what was scheduled, under request ids."""

    parts: dict[str, tuple[int, int, int, int]]  # kind, num_computed_tokens, num_tokens, num_cached_tokens
    tables: dict[str, list[int]]
    every_table: dict[str, list[int]]  # of the requests that compute nothing too
    drafts: dict[str, list[str]]
    rest: list[Any]


@dataclass
class Replay:
    words: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    origins: list[list[int]] = field(default_factory=list)
    finished: dict[str, str] = field(default_factory=dict)
    resets: list[tuple[int, str, dict]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    num_events: int = 0
    tables: list[list[int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    rows: dict[int, int] = field(default_factory=dict)  # of request numbers in the lists above
    next: int = 0
    known: set[int] | None = None  # blocks whose prefix can be found, if the recording began with a snapshot

    def append(self, piece: dict[str, Any]) -> None:
        if not self.num_events and piece["events"] and piece["events"][0][0] == "snapshot":
            self.num_events = piece["start"]
        assert (piece["version"], piece["start"], piece["first_word"]) == (
            1,
            self.num_events,
            len(self.words),
        )
        self.words += piece["words"]
        for kind, *event in piece["events"]:
            getattr(self, f"_{kind}")(*event)
            self.num_events += 1

    def _snapshot(self, time, step, next, blocks, known, requests) -> None:
        if self.ids or self.steps:
            return
        for number, name, num_prompt, computed, table, words, reason in requests:
            self.next = number
            self._add(time, name, words)
            self.origins[-1] = [0] * (len(words) - num_prompt)
            self.tables[-1], self.ends[-1] = list(table), computed
            if reason is not None:
                self.finished[name] = reason
        self.next, self.known = next, set(known)

    def _add(self, time: int, request_id: str, words: list[int]) -> None:
        self.rows[self.next] = len(self.ids)
        self.next += 1
        self.ids.append(request_id)
        self.texts.append([self.words[word] for word in words])
        self.origins.append([])
        self.tables.append([])
        self.ends.append(0)

    def _token(self, request: int, word: int, origin: int) -> None:
        self.texts[self.rows[request]].append(self.words[word])
        self.origins[self.rows[request]].append(origin)

    def _finish(self, time: int, request: int, reason: str) -> None:
        self.finished[self.ids[self.rows[request]]] = reason

    def _reset(self, time: int, reason: str, settings: dict[str, Any]) -> None:
        self.resets.append((len(self.steps), reason, settings))
        self.tables, self.ends = [[] for _ in self.ids], [0] * len(self.ids)

    def _step(self, start, end, waiting, running, blocks, decodes, parts, tables, drafts, preempted, *rest):
        row = self.rows
        preempted, decodes = [row[r] for r in preempted], [row[r] for r in decodes]
        for request in preempted:
            self.tables[request], self.ends[request] = [], 0
        every = [(request, 1, self.ends[request], 1, 0) for request in decodes]
        every += [(row[request], *part) for request, *part in parts]
        for number, kept, *added in tables:
            self.tables[row[number]] = self.tables[row[number]][:kept] + added
        for request, _, computed, num_tokens, _ in every:
            self.ends[request] = computed + num_tokens
        self.steps.append(
            Step(
                {self.ids[request]: tuple(part) for request, *part in every},
                {self.ids[request]: self.tables[request] for request, *_ in every},
                dict(zip(self.ids, self.tables, strict=True)),
                {self.ids[row[request]]: [self.words[word] for word in words] for request, *words in drafts},
                [start, end, waiting, running, blocks, [self.ids[r] for r in preempted], *rest],
            )
        )
