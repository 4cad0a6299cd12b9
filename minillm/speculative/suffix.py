"""Suffix decoding: count what followed every recent suffix, and propose as far as the counts are clear.

A suffix tree holds each run of at most `max_depth` tokens that occurred, with its count. The longest suffix of the text
that is in the tree is a node; the draft goes down from there to the most frequent child, again and again. It stops
where a draft token would be right with a probability below `min_token_prob`, by the counts. So the number of drafts
follows from the text: long where it repeats itself, none where it does not.

One tree is of the request itself. The other one is of all outputs so far, so it also learns from other requests.

Source: Oliaro et al. 2024, "SuffixDecoding" (arXiv 2411.04975), sections 3 and 4.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from minillm.cache.kv_cache import KVCache
from minillm.engine.proposer import Computed
from minillm.engine.request import Request, Status
from minillm.sampling import Drafts


@dataclass(slots=True)
class Node:
    """A run of tokens: how often it occurred, and the runs that are one token longer, by that token."""

    count: int = 0
    children: dict[int, "Node"] = field(default_factory=dict)


class SuffixTree:
    """Counts all runs of at most `max_depth` tokens of the texts that it is given."""

    def __init__(self, max_depth: int) -> None:
        self.root, self.max_depth = Node(), max_depth

    def start(self) -> "deque[Node]":
        """Return the state of a new text for `append`: the nodes of its open suffixes, the longest first."""
        return deque(maxlen=self.max_depth)

    def append(self, open_suffixes: "deque[Node]", token_id: int) -> None:
        """Count `token_id` after each open suffix of a text, and after the empty one."""
        open_suffixes.append(self.root)
        for i, node in enumerate(open_suffixes):
            child = node.children.get(token_id)
            if child is None:
                child = node.children[token_id] = Node()
            child.count += 1
            open_suffixes[i] = child

    def match(self, token_ids: Sequence[int]) -> tuple[Node, int]:
        """Return the node of the longest suffix of `token_ids` that something followed, and its length."""
        for length in range(min(self.max_depth - 1, len(token_ids)), 0, -1):
            node: Node | None = self.root
            for token_id in token_ids[len(token_ids) - length :]:
                node = node.children.get(token_id) if node is not None else None
            if node is not None and node.children:
                return node, length
        return self.root, 0


def walk(node: Node, limit: int, min_token_prob: float) -> tuple[list[int], float]:
    """Return the most frequent tokens below `node`, and how many of them are right on average, by the counts."""
    token_ids, prob, expected = list[int](), 1.0, 0.0
    while len(token_ids) < limit and node.children:
        total = sum(child.count for child in node.children.values())
        token_id, child = max(node.children.items(), key=lambda item: item[1].count)
        prob *= child.count / total
        if prob < min_token_prob:
            break
        token_ids.append(token_id)
        expected, node = expected + prob, child
    return token_ids, expected


@dataclass(slots=True)
class _Seen:
    """A request, its tree, and the state of both trees after its first `num_tokens` tokens."""

    request: Request
    tree: SuffixTree
    own: "deque[Node]"
    shared: "deque[Node]"
    num_tokens: int = 0


class Suffix:
    """Proposes from the request's own tree or from that of all outputs, whichever expects more right drafts.

    A draft is at most `max_spec_factor` times as long as the suffix that matched. The tree of all outputs starts again
    after `max_cached_tokens` tokens.
    """

    taps: tuple[int, ...] | None = None
    cache: KVCache | None = None

    def __init__(
        self,
        num_speculative_tokens: int,
        max_depth: int = 24,
        max_spec_factor: float = 1.0,
        min_token_prob: float = 0.1,
        max_cached_tokens: int = 10_000,
    ) -> None:
        self.num_speculative_tokens, self.max_depth = num_speculative_tokens, max_depth
        self.max_spec_factor, self.min_token_prob = max_spec_factor, min_token_prob
        self.max_cached_tokens = max_cached_tokens
        self._outputs, self._num_cached = SuffixTree(max_depth), 0
        self._seen: dict[int, _Seen] = {}

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part, at most `limit`."""
        self._seen = {
            key: seen for key, seen in self._seen.items() if seen.request.status is not Status.FINISHED
        }
        return [
            Drafts(self._drafts(part.request, part.limit) if part.limit else []) for part in computed.parts
        ]

    def _drafts(self, request: Request, limit: int) -> list[int]:
        self._read(request)
        best, most = list[int](), 0.0
        for tree in (self._seen[id(request)].tree, self._outputs):
            node, length = tree.match(request.token_ids[-self.max_depth :])
            drafts, expected = walk(node, min(limit, int(length * self.max_spec_factor)), self.min_token_prob)
            if expected > most:
                best, most = drafts, expected
        return best

    def _read(self, request: Request) -> None:
        """Add the tokens since the last time to the trees; the prompt belongs to the request's own tree only."""
        if self._num_cached >= self.max_cached_tokens:
            self._outputs, self._num_cached = SuffixTree(self.max_depth), 0
            for seen in self._seen.values():
                seen.shared = self._outputs.start()
        if id(request) not in self._seen:
            tree = SuffixTree(self.max_depth)
            self._seen[id(request)] = _Seen(request, tree, tree.start(), self._outputs.start())
        seen = self._seen[id(request)]
        for i in range(seen.num_tokens, request.num_tokens):
            seen.tree.append(seen.own, request.token_ids[i])
            if i >= request.num_prompt_tokens:
                self._outputs.append(seen.shared, request.token_ids[i])
                self._num_cached += 1
        seen.num_tokens = request.num_tokens
