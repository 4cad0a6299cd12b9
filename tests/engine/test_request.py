"""When a sample ends and what text it then has: `Request` alone, fed token by token."""

import itertools
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.engine.request import CompletionOutput, Request, RequestMetrics, RequestOutput, Status
from minillm.model.tokenizer import Detokenizer, StopStrings, Tokenizer
from minillm.sampling import Logprob, SamplingParams, SamplingRow
from tests.engine.tiny import EOS, byte_level_tokenizer


@cache
def tokenizer():
    from transformers import PreTrainedTokenizerFast

    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>"))


def make(max_tokens=99, tokenizer=tokenizer, **params):
    params = SamplingParams(max_tokens=max_tokens, **params)
    output = CompletionOutput(0)
    if params.logprobs is not None:
        output.logprobs, output.cumulative_logprob = [], 0.0
    return Request(
        request_id="r",
        params=params,
        token_ids=[9, 9],
        num_prompt_tokens=2,
        max_tokens=max_tokens,
        row=SamplingRow(params, 0, [9, 9], output.token_ids),
        output=output,
        result=RequestOutput("r", None, [9, 9], [output], RequestMetrics(0.0)),
        stop_strings=StopStrings(params.stop),
        detokenizer=Detokenizer(tokenizer()) if tokenizer and params.detokenize else None,
    )


def ids_of(text):
    """One token a character (a byte, if it has several): merged words would hide where a text is cut."""
    return [i for c in text for i in tokenizer().encode(c, add_special_tokens=False)]


def feed(request, *parts):
    """Append texts and ids until the request is finished; returns the text after each token."""
    seen = []
    for token_id in [i for part in parts for i in (ids_of(part) if isinstance(part, str) else [part])]:
        if request.status is Status.FINISHED:
            break
        request.append(token_id, None, EOS)
        seen.append(request.output.text)
    return seen


def end(request):
    output = request.output
    return output.text, output.finish_reason, output.stop_reason


@pytest.mark.parametrize("eos", EOS)
def test_any_end_token_ends_it_and_is_in_the_ids_but_not_in_the_text(eos):
    request = make()
    feed(request, "hi", eos, "more")
    assert end(request) == ("hi", "stop", None if eos == EOS[0] else eos), "the model's own needs no name"
    assert request.output.token_ids == [*ids_of("hi"), eos]
    assert request.token_ids == [9, 9, *ids_of("hi"), eos]


def test_an_ignored_end_token_goes_by():
    request = make(ignore_eos=True, max_tokens=4)
    feed(request, "hi", EOS[0], "more")
    assert end(request) == ("him", "length", None)


def test_a_stop_token_ends_it_even_where_the_end_token_is_ignored():
    request = make(stop_token_ids=[EOS[0], *ids_of("q")], ignore_eos=True)
    feed(request, "hiq", "more")
    assert end(request) == ("hi", "stop", ids_of("q")[0])
    request = make(stop_token_ids=[EOS[0]], ignore_eos=True)
    feed(request, "hi", EOS[1], EOS[0])
    assert end(request)[1:] == ("stop", EOS[0])


def test_a_stop_string_is_found_across_tokens_and_never_shown():
    request = make(stop=["STOP", "zzz"])
    assert feed(request, "a STONE, STOP it") == [
        *("a", "a ", "a ", "a ", "a ", "a STON", "a STONE", "a STONE,", "a STONE, "),
        *["a STONE, "] * 4,
    ]
    assert end(request) == ("a STONE, ", "stop", "STOP")


def test_what_is_held_back_comes_out_when_the_output_ends_otherwise():
    for last, reason in ([], "length"), ([EOS[0]], "stop"):
        request = make(stop=["STOP"], max_tokens=5)
        feed(request, "a STO"[: 5 - len(last)], *last)
        assert end(request)[:2] == ("a STO"[: 5 - len(last)], reason)
    request = make(stop=["STOP"])
    feed(request, "a STO")
    request.finish("abort")
    assert end(request) == ("a STO", "abort", None)


def test_text_after_a_stop_string_within_its_token_is_cut():
    request = make(stop=["he q"])
    feed(request, *tokenizer().encode("the quick brown", add_special_tokens=False))
    assert end(request) == ("t", "stop", "he q")


def test_nothing_follows_a_stop_string_not_even_half_a_character():
    class Detokenizer:
        """A token "STOP" and the first byte of something."""

        push, finish = staticmethod(lambda _: "STOP"), staticmethod(lambda: "\ufffd")

    request = make(stop="STOP")
    request.detokenizer = Detokenizer()
    request.append(7, None, EOS)
    assert end(request) == ("", "stop", "STOP")


def test_the_last_token_allowed_may_still_complete_a_stop_string():
    request = make(stop=["ab"], max_tokens=2)
    feed(request, "ab")
    assert end(request) == ("", "stop", "ab")


def test_the_end_is_max_tokens():
    request = make(max_tokens=3)
    feed(request, "abcdef")
    assert end(request) == ("abc", "length", None)


@pytest.mark.parametrize(
    ("params", "ender", "num_tokens"),
    [({"stop_token_ids": [105]}, [105], 3), ({}, [EOS[1]], 3), ({"stop": "x"}, "x", 4)],
)
def test_nothing_ends_it_before_min_tokens(params, ender, num_tokens):
    """An end token is masked while fewer tokens are out; a stop string does not count within the first of them."""
    request = make(min_tokens=3, **params)
    feed(request, *ender * 9)
    assert request.output.finish_reason == "stop" and len(request.output.token_ids) == num_tokens


def test_a_stop_string_counts_after_min_tokens_wherever_it_began():
    request = make(min_tokens=2, stop="xyz", max_tokens=8)
    feed(request, "xyzaxyza")
    assert end(request) == ("", "stop", "xyz")
    request = make(min_tokens=3, stop="xyz", max_tokens=8)
    feed(request, "xyzaxyza")
    assert end(request) == ("xyza", "stop", "xyz")


def test_half_a_character_is_never_shown_and_at_the_end_replaced():
    request = make()
    assert feed(request, "ß", *ids_of("字")[:2]) == ["", "ß", "ß", "ß"]
    request.finish("abort")
    assert request.output.text == "ß\ufffd"


def test_a_stop_string_that_only_the_end_completes_counts_but_an_abort_stays_one():
    half = ids_of("字")[:1]
    request = make(stop="\ufffd", max_tokens=2)
    feed(request, "a", *half)
    assert end(request) == ("a", "stop", "\ufffd")
    request = make(stop="\ufffd")
    feed(request, "a", *half)
    request.finish("abort")
    assert end(request) == ("a", "abort", None)
    request = make(stop="\ufffd", min_tokens=9, max_tokens=9)
    feed(request, "a", *half)
    request.finish("length")
    assert end(request) == ("a\ufffd", "length", None)


@pytest.mark.parametrize("without", [{"tokenizer": None}, {"detokenize": False}])
def test_without_text_there_are_ids_alone(without):
    request = make(max_tokens=2, **without)
    feed(request, "ab")
    assert end(request) == ("", "length", None) and len(request.output.token_ids) == 2


def test_logprobs_add_up():
    request = make(logprobs=0)
    for token_id, logprob in ((7, -1.0), (8, -0.5)):
        request.append(token_id, {token_id: Logprob(logprob, 1), 3: Logprob(-0.1, 1)}, EOS)
    assert request.output.cumulative_logprob == -1.5
    assert [list(each) for each in request.output.logprobs] == [[7, 3], [8, 3]]


letters = st.text("ab", min_size=1, max_size=3)


@given(
    text=st.text("ab", max_size=12),
    stop=st.lists(letters, max_size=3),
    min_tokens=st.integers(0, 6),
    max_tokens=st.integers(6, 10),
    last=st.sampled_from([None, EOS[0]]),
)
def test_the_text_is_what_the_rules_say(text, stop, min_tokens, max_tokens, last):
    request = make(stop=stop, min_tokens=min_tokens, max_tokens=max_tokens)
    shown = feed(request, text, *[] if last is None else [last])
    assert all(longer.startswith(shorter) for shorter, longer in itertools.pairwise(shown))
    if request.status is not Status.FINISHED:
        request.finish("abort")
    assert end(request) == expected(text, stop, min_tokens, max_tokens, last)


def expected(text, stop, min_tokens, max_tokens, last):
    """By the definition, one letter a token: which comes first of a whole stop string, the limit and the end token."""
    for length in range(min_tokens + 1, min(len(text), max_tokens) + 1):
        for whole in stop:
            if text[:length].endswith(whole):
                return text[: length - len(whole)], "stop", whole
    if len(text) >= max_tokens:
        return text[:max_tokens], "length", None
    if last is not None:
        length = len(text) + 1
        if length >= min_tokens:
            return text, "stop", None
        return text, "length" if length >= max_tokens else "abort", None
    return text, "abort", None


@pytest.mark.parametrize("broken_off", ["before the token", "before its sequence", "before its text"])
def test_a_request_is_restored_from_its_output_tokens(broken_off):
    """As an interrupt leaves it in the midst of `append`: what is behind the last counted token is done again."""
    request, whole = (make(logprobs=0, stop=["zz"], max_tokens=9) for _ in range(2))
    tokens = ids_of("hi ßab")
    for one in (request, whole):
        for token_id in tokens[:-1]:
            one.append(token_id, {token_id: Logprob(-0.5, 1)}, EOS)
    request.drafts, request.num_computed_tokens, request.num_published = [3, 3], 4, 1
    request.output.logprobs.append({tokens[-1]: Logprob(-0.5, 1)})
    if broken_off != "before the token":
        request.output.token_ids.append(tokens[-1])
        whole.append(tokens[-1], {tokens[-1]: Logprob(-0.5, 1)}, EOS)
    if broken_off == "before its text":
        request.token_ids.append(tokens[-1])
    request.restore()
    assert request.output == whole.output and request.token_ids == whole.token_ids
    assert (request.status, request.drafts, request.num_computed_tokens) == (Status.WAITING, [], 0)
    for one in (request, whole):
        feed(one, "czz")
    assert end(request) == end(whole)
