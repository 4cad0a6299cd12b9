"""A request with drafts, as exercise 10.5 sees it. It has what a commit changes in the engine's `Request`."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(eq=False)
class DraftedRequest:
    """A request whose last token and drafts have just been computed.

    `token_ids` is the prompt and every sampled token. `num_computed_tokens` counts the keys and values in the cache,
    those of the drafts included. They are in the blocks of `block_table`, and other requests can find the first
    `num_published` of these blocks.
    """

    token_ids: list[int]
    max_tokens: int
    stop_token_ids: Collection[int] = ()
    drafts: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_published: int = 0
    block_table: list[int] = field(default_factory=list)
    finished: bool = False

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)

    def append(self, token_id: int) -> None:
        """Append one token. Set `finished` if it is a stop token, or the last one of `max_tokens`."""
        self.token_ids.append(token_id)
        num_outputs = len(self.token_ids) - self.num_prompt_tokens
        self.finished = token_id in self.stop_token_ids or num_outputs >= self.max_tokens
