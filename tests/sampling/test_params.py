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
        [],
        [],
        [],
        [],
    )
    assert params.allowed_token_ids is None
    assert params.detokenize and params.skip_special_tokens
    assert not params.ignore_eos and not params.include_stop_str_in_output and not params.is_greedy


def test_what_may_be_written_in_two_ways_is_stored_in_one():
    assert SamplingParams(stop="\n").stop == ["\n"] == SamplingParams(stop=["\n"]).stop
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0)
    assert SamplingParams(seed=-1) == SamplingParams(seed=None)
    assert SamplingParams(logprobs=True, prompt_logprobs=True) == SamplingParams(
        logprobs=1, prompt_logprobs=1
    )
    assert SamplingParams(temperature=0, top_k=5, top_p=0.5, min_p=0.5) == SamplingParams(temperature=0)
    assert SamplingParams(temperature=0.001) == SamplingParams(temperature=0.01)
    assert type(SamplingParams(temperature=1).temperature) is float
    assert SamplingParams(top_k=np.int64(5), top_p=np.float32(0.5)) == SamplingParams(top_k=5, top_p=0.5)
    assert type(SamplingParams(top_k=np.int64(5)).top_k) is int


def test_a_list_given_stays_the_callers():
    stop, bias = ["a"], {1: 2.0}
    params = SamplingParams(stop=stop, logit_bias=bias)
    stop.append("b")
    bias[3] = 4.0
    assert params.stop == ["a"]
    assert params.logit_bias == {1: 2.0}


def test_ids_and_bad_words_are_kept_once_and_stop_strings_as_given():
    params = SamplingParams(stop=["b", "a", "b"], stop_token_ids=[7, 3, 7], bad_words=["y", "x", "y"])
    assert (params.stop, params.stop_token_ids, params.bad_words) == (["b", "a", "b"], [7, 3], ["y", "x"])


def test_params_can_be_sent_to_another_process():
    params = SamplingParams(logit_bias={1: 2.0}, stop="x")
    assert pickle.loads(pickle.dumps(params)) == params


# ---- Assignment and clones ----


def test_an_assigned_value_is_checked_like_an_argument():
    params = SamplingParams()
    params.max_tokens, params.stop, params.top_p = 5, "x", np.float32(0.5)
    assert params == SamplingParams(max_tokens=5, stop=["x"], top_p=0.5)
    with pytest.raises(ValueError, match="max_tokens=0"):
        params.max_tokens = 0
    with pytest.raises(TypeError, match="top_p='x'"):
        params.top_p = "x"
    with pytest.raises(AttributeError, match="no parameter 'max_token'"):
        params.max_token = 5
    assert params == SamplingParams(max_tokens=5, stop=["x"], top_p=0.5)


def test_a_clone_shares_nothing_that_can_change():
    params = SamplingParams(stop=["a"], stop_token_ids=[1], logit_bias={1: 2.0}, allowed_token_ids=[1])
    clone = params.clone()
    assert clone == params
    params.stop.append("b"), params.stop_token_ids.append(2), params.allowed_token_ids.append(3)
    params.logit_bias[9] = 1.0
    params.max_tokens = 3
    assert clone == SamplingParams(stop=["a"], stop_token_ids=[1], logit_bias={1: 2.0}, allowed_token_ids=[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda params: setattr(params, "min_tokens", 17), "min_tokens=17 is more than max_tokens=16"),
        (lambda params: setattr(params, "temperature", 0), "n=2 samples .*temperature=0"),
        (lambda params: setattr(params, "detokenize", False), "detokenize=False"),
        (lambda params: params.stop.append(""), r"stop\[1\] is an empty string"),
        (lambda params: params.stop_token_ids.append(-3), r"stop_token_ids\[0\]=-3"),
        (lambda params: params.allowed_token_ids.clear(), "allows no token"),
    ],
)
def test_a_clone_checks_what_assignment_cannot(change, message):
    params = SamplingParams(n=2, stop="x", allowed_token_ids=[1])
    change(params)
    with pytest.raises(ValueError, match=message):
        params.clone()


# ---- Values that are refused ----


@pytest.mark.parametrize(
    ("temperature", "greedy", "effective"),
    [(0, True, 1.0), (9e-6, True, 1.0), (1e-5, False, 0.01), (0.009, False, 0.01), (0.7, False, 0.7)],
)
def test_a_low_temperature_is_raised_and_a_tiny_one_greedy(temperature, greedy, effective):
    params = SamplingParams(temperature=temperature)
    assert (params.is_greedy, params.effective_temperature) == (greedy, effective)


OUT_OF_BOUNDS = {
    "n": [0, -1, 16_385],
    "temperature": [-0.1, 2.01, 10**400, math.nan, math.inf],
    "top_p": [0, -0.1, 1.1, math.nan],
    "top_k": [-2],
    "min_p": [-0.1, 1.1, math.nan],
    "repetition_penalty": [0, -1, 10**400, math.nan, math.inf],
    "presence_penalty": [-2.1, 2.1, math.nan],
    "frequency_penalty": [-2.1, 2.1, math.nan],
    "max_tokens": [0, -1],
    "min_tokens": [-1, 17],
    "stop": ["", ["a", ""]],
    "stop_token_ids": [[-1]],
    "logprobs": [-2, 21],
    "prompt_logprobs": [-2, 21],
    "logit_bias": [{-1: 1.0}, {0: 101}, {0: math.nan}, {0: -math.inf}],
    "allowed_token_ids": [[], [-1]],
    "bad_words": [[""]],
    "seed": [-(2**63) - 1, 2**64],
}
WRONG_TYPE = {
    "n": [True, 1.0, "1", None],
    "temperature": ["1", None, True],
    "top_p": [None, "x"],
    "top_k": [None, 1.5, True],
    "max_tokens": [True, 1.5],
    "min_tokens": [None],
    "stop": [1, [1], b"x", {"a": 1}, ("a",)],
    "stop_token_ids": [5, "5", [1.0], [True]],
    "ignore_eos": [1, None],
    "include_stop_str_in_output": [1, "x"],
    "logprobs": [False, 1.0],
    "prompt_logprobs": [1.5],
    "logit_bias": [[1], {"1": 1.0}, {1: "x"}, {True: 1.0}],
    "allowed_token_ids": [3, ["a"]],
    "bad_words": [[1], 1, "no"],
    "seed": [1.0, True],
    "detokenize": [0, None],
    "skip_special_tokens": [0, None],
    "logits_processors": [print, ["x"]],
}
# Parameters of vLLM that have no meaning here yet.
ONLY_DEFAULT = {
    "spaces_between_special_tokens": [False],
    "flat_logprobs": [True],
    "logprob_token_ids": [[1]],
    "prompt_logprob_token_ids": [np.zeros((2, 2), dtype=int)],
    "prompt_logprob_start": [0],
    "structured_outputs": [{"regex": "a"}],
    "thinking_token_budget": [5],
    "repetition_detection": [{"max": 2}],
    "watermarking": [True],
    "stream_interval": [2],
    "skip_reading_prefix_cache": [True],
    "skip_clone": [True],
    "extra_args": [{"a": 1}],
    "routed_experts_prompt_start": [1],
    "trace_decode_token_ids": [[1]],
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


@pytest.mark.parametrize(("name", "value"), cases(ONLY_DEFAULT))
def test_what_is_not_supported_is_accepted_at_its_default_only(name, value):
    default = getattr(SamplingParams(), name)
    assert SamplingParams(**{name: default}) == SamplingParams()
    with pytest.raises(
        ValueError, match=rf"(?s){name}=.* is not supported. Leave it at its default, {default}"
    ):
        SamplingParams(**{name: value})


def test_no_parameter_was_forgotten():
    assert set(OUT_OF_BOUNDS) | set(WRONG_TYPE) | set(ONLY_DEFAULT) == set(
        SamplingParams.__dataclass_fields__
    )


def test_the_edges_are_inside():
    SamplingParams(top_p=1, min_p=1, presence_penalty=-2, frequency_penalty=2, max_tokens=1, min_tokens=1)
    SamplingParams(max_tokens=None, min_tokens=1000, seed=2**64 - 1, logprobs=0, logit_bias={0: -100, 1: 100})
    SamplingParams(temperature=2, n=16_384, seed=-(2**63), logprobs=20, prompt_logprobs=-1)


def test_the_message_says_what_to_do():
    with pytest.raises(ValueError, match=r"max_tokens=0 .* at least 1\..*Use None to continue"):
        SamplingParams(max_tokens=0)
    with pytest.raises(ValueError, match=r"min_tokens=20 is more than max_tokens=16"):
        SamplingParams(min_tokens=20)
    with pytest.raises(ValueError, match=r"top_p=0 .*more than 0 and at most 1\. Use 1 to turn it off"):
        SamplingParams(top_p=0)


def test_greedy_samples_of_one_prompt_would_all_be_equal():
    with pytest.raises(ValueError, match=r"n=2 .*temperature=0.*Use n=1"):
        SamplingParams(n=2, temperature=0)


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
    for enough in (-1, 0, 10):
        check_vocabulary(SamplingParams(**{name: enough}), vocab_size=10)
    with pytest.raises(ValueError, match=f"{name}=11"):
        check_vocabulary(SamplingParams(**{name: 11}), vocab_size=10)


def test_every_parameter_of_vllm_is_one_here():
    """The fields of vLLM 0.33's SamplingParams, without those that it sets itself. `output_kind` needs its enum."""
    theirs = """
        n presence_penalty frequency_penalty repetition_penalty temperature watermarking top_p top_k min_p seed stop
        stop_token_ids ignore_eos max_tokens min_tokens logprobs prompt_logprobs prompt_logprob_token_ids
        prompt_logprob_start logprob_token_ids flat_logprobs detokenize skip_special_tokens
        spaces_between_special_tokens include_stop_str_in_output stream_interval skip_clone structured_outputs
        logit_bias allowed_token_ids extra_args bad_words skip_reading_prefix_cache thinking_token_budget
        repetition_detection routed_experts_prompt_start trace_decode_token_ids
    """.split()
    assert {*theirs, "logits_processors"} == set(SamplingParams.__dataclass_fields__)
