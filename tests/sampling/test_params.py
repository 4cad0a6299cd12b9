import math
import pickle

import numpy as np
import pytest

from minillm.sampling import SamplingParams, check_vocabulary


def test_the_defaults_are_vllms():
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (1, 1.0, 1.0, 0, 0.0)
    assert (params.max_tokens, params.min_tokens, params.logprobs, params.seed) == (16, 0, None, None)
    assert (params.stop, params.stop_token_ids, params.bad_words, params.logits_processors) == (
        (),
        (),
        (),
        (),
    )
    assert params.allowed_token_ids is None
    assert params.detokenize and not params.ignore_eos and not params.is_greedy


def test_what_may_be_written_in_two_ways_is_stored_in_one():
    assert SamplingParams(stop="\n").stop == ("\n",) == SamplingParams(stop=["\n"]).stop
    assert SamplingParams(bad_words="no").bad_words == ("no",)
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0)
    assert type(SamplingParams(temperature=1).temperature) is float
    assert SamplingParams(top_k=np.int64(5), top_p=np.float32(0.5)) == SamplingParams(top_k=5, top_p=0.5)
    assert type(SamplingParams(top_k=np.int64(5)).top_k) is int


def test_a_list_given_stays_the_callers():
    stop, bias = ["a"], {1: 2.0}
    params = SamplingParams(stop=stop, logit_bias=bias)
    stop.append("b")
    bias[3] = 4.0
    assert params.stop == ("a",)
    assert params.logit_bias == {1: 2.0}


def test_params_can_be_hashed_and_sent_to_another_process():
    params = SamplingParams(logit_bias={1: 2.0}, stop="x")
    assert hash(params) == hash(SamplingParams(logit_bias={1: 2.0}, stop="x"))
    assert pickle.loads(pickle.dumps(params)) == params


@pytest.mark.parametrize(
    ("temperature", "greedy", "effective"),
    [(0, True, 1.0), (9e-6, True, 1.0), (1e-5, False, 0.01), (0.009, False, 0.01), (0.7, False, 0.7)],
)
def test_a_low_temperature_is_raised_and_a_tiny_one_greedy(temperature, greedy, effective):
    params = SamplingParams(temperature=temperature)
    assert (params.is_greedy, params.effective_temperature) == (greedy, effective)


OUT_OF_BOUNDS = {
    "n": [0, -1],
    "temperature": [-0.1, math.nan, math.inf],
    "top_p": [0, -0.1, 1.1, math.nan],
    "top_k": [-2],
    "min_p": [-0.1, 1.1, math.nan],
    "repetition_penalty": [0, -1, math.nan, math.inf],
    "presence_penalty": [-2.1, 2.1, math.nan],
    "frequency_penalty": [-2.1, 2.1, math.nan],
    "max_tokens": [0, -1],
    "min_tokens": [-1, 17],
    "stop": ["", ["a", ""]],
    "stop_token_ids": [[-1]],
    "logprobs": [-1],
    "prompt_logprobs": [-1],
    "logit_bias": [{-1: 1.0}, {0: 101}, {0: math.nan}, {0: -math.inf}],
    "allowed_token_ids": [[], [-1]],
    "bad_words": ["", [""]],
    "seed": [-1, 2**64],
}
WRONG_TYPE = {
    "n": [True, 1.0, "1", None],
    "temperature": ["1", None, True],
    "top_p": [None, "x"],
    "top_k": [None, 1.5, True],
    "max_tokens": [True, 1.5],
    "min_tokens": [None],
    "stop": [1, [1], b"x", {"a": 1}],
    "stop_token_ids": [5, "5", [1.0], [True]],
    "ignore_eos": [1, None],
    "logprobs": [True, 1.0],
    "logit_bias": [[1], {"1": 1.0}, {1: "x"}, {True: 1.0}],
    "allowed_token_ids": [3, ["a"]],
    "bad_words": [[1], 1],
    "seed": [1.0, True],
    "detokenize": [0, None],
    "logits_processors": [print, ["x"]],
}


def cases(table):
    return [
        pytest.param(name, value, id=f"{name}={value!r}")
        for name, values in table.items()
        for value in values
    ]


@pytest.mark.parametrize(("name", "value"), cases(OUT_OF_BOUNDS))
def test_a_value_out_of_bounds_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        SamplingParams(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPE))
def test_a_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=name):
        SamplingParams(**{name: value})


def test_no_parameter_was_forgotten():
    assert set(OUT_OF_BOUNDS) | set(WRONG_TYPE) == set(SamplingParams.__dataclass_fields__)


def test_the_edges_are_inside():
    SamplingParams(top_p=1, min_p=1, presence_penalty=-2, frequency_penalty=2, max_tokens=1, min_tokens=1)
    SamplingParams(max_tokens=None, min_tokens=1000, seed=2**64 - 1, logprobs=0, logit_bias={0: -100, 1: 100})


def test_the_message_says_what_to_do():
    with pytest.raises(ValueError, match=r"max_tokens=0 .* at least 1 .*None goes on to the end"):
        SamplingParams(max_tokens=0)
    with pytest.raises(ValueError, match=r"min_tokens=20 is more than max_tokens=16"):
        SamplingParams(min_tokens=20)
    with pytest.raises(ValueError, match=r"top_p=0 .*more than 0 and at most 1 \(1 turns it off\)"):
        SamplingParams(top_p=0)


def test_stop_strings_need_text():
    with pytest.raises(ValueError, match="detokenize=False"):
        SamplingParams(stop="x", detokenize=False)


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids", "logit_bias"])
def test_ids_beyond_the_vocabulary_are_refused_by_name(name):
    def make(token_id):
        return SamplingParams(**{name: {token_id: 1.0} if name == "logit_bias" else [0, token_id]})

    check_vocabulary(make(9), vocab_size=10)
    with pytest.raises(ValueError, match=rf"{name} .*\[10\].* ends at 9"):
        check_vocabulary(make(10), vocab_size=10)


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
def test_more_logprobs_than_tokens_are_refused(name):
    check_vocabulary(SamplingParams(**{name: 10}), vocab_size=10)
    with pytest.raises(ValueError, match=f"{name}=11"):
        check_vocabulary(SamplingParams(**{name: 11}), vocab_size=10)
