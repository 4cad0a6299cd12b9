"""Chapter 09's counts agree with what the engine says of each request."""

from minillm.course.prefix_requests import ask, cached_tokens, prefilled_tokens
from tests.engine import tiny


def test_the_counts_are_those_of_each_request() -> None:
    llm = tiny.llm(block_size=2, max_num_batched_tokens=3, trace=True)
    ask(llm, [[9, 9, 9]])
    trace, outputs = ask(llm, [[5, 6, 7, 8, 9], [5, 6, 7, 8, 9], [5, 6, 8]], [2, 1, 1])
    assert [len(output.outputs[0].token_ids) for output in outputs] == [2, 1, 1]
    assert cached_tokens(trace) == [0, 4, 2] == [output.num_cached_tokens for output in outputs]
    assert prefilled_tokens(trace) == [5, 1, 1]
