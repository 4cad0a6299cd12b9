"""The numbers people quote for prefill and decode (COURSE.md, "Claims to check"), each computed by the package."""

from dataclasses import replace

import pytest

from minillm.measure.costs import Cost, decode_cost, prefill_cost, step_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.roofline import ridge, time_at

A100 = KNOWN_GPUS["A100"]
LLAMA_7B = KNOWN_MODELS["llama_2_7b"]
LLAMA_8B = KNOWN_MODELS["llama_3_8b"]
LLAMA_70B = KNOWN_MODELS["llama_3_70b"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama_2_7b", 6_738_415_616),
        ("llama_3_8b", 8_030_261_248),
        ("llama_3_70b", 70_553_706_496),
        ("qwen3_0_6b", 596_049_920),
    ],
)
def test_a_known_model_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert KNOWN_MODELS[name].num_parameters == parameters


@pytest.mark.parametrize(("model", "seconds"), [(LLAMA_7B, 0.090), (LLAMA_70B, 0.9)])
def test_prefill_of_2000_tokens_at_a100_peak(model, seconds: float) -> None:
    # The rule of thumb, 2 FLOP a parameter and token, leaves out attention and counts the embedding: within 5 %.
    step = time_at(prefill_cost(model, 2000), A100, "bfloat16")
    assert step.seconds == pytest.approx(seconds, rel=0.05)
    assert step.bound == "compute"


def test_a_token_at_128k_with_a_cache_70b() -> None:
    cost = decode_cost(LLAMA_70B, context=131_072)
    assert cost.attention_flops == pytest.approx(0.34e12, rel=0.02)
    assert cost.linear_flops == pytest.approx(0.14e12, rel=0.02)
    assert cost.kv_read_bytes == pytest.approx(42.9e9, rel=0.002)


def test_kv_bytes_70b() -> None:
    assert decode_cost(LLAMA_70B, context=0).kv_write_bytes == 320 * 1024
    mha = replace(LLAMA_70B, num_key_value_heads=LLAMA_70B.num_attention_heads)
    # 4,096 visible tokens: 4,095 in the cache and the new one.
    assert decode_cost(LLAMA_70B, context=4095).kv_read_bytes == pytest.approx(1.34e9, rel=0.002)
    assert decode_cost(mha, context=4095).kv_read_bytes == pytest.approx(10.7e9, rel=0.005)


def test_a_decode_step_70b_on_two_a100s() -> None:
    cost = decode_cost(LLAMA_70B, context=4096)
    two_a100s = 2 * A100.read_bandwidth
    # 141 GB are stored; a step reads 139, as it needs one row of the embedding table. Claimed: 140, within 1 %.
    assert cost.weight_bytes == pytest.approx(140e9, rel=0.01)
    assert cost.weight_bytes / two_a100s == pytest.approx(34e-3, rel=0.01)
    assert cost.kv_read_bytes / two_a100s == pytest.approx(0.33e-3, rel=0.01)
    # Compute, all of it on one GPU: "0.1-0.2 ms" is wrong by a factor of three.
    assert time_at(cost, A100, "bfloat16").compute_s == pytest.approx(0.48e-3, rel=0.01)


def test_decode_at_batch_1_is_1_flop_per_byte_against_a_ridge_of_153() -> None:
    cost = decode_cost(LLAMA_70B, context=0)
    assert cost.intensity == pytest.approx(1.0, abs=0.01)
    assert ridge(A100, "bfloat16") == pytest.approx(153, abs=0.5)
    step = time_at(cost, A100, "bfloat16")
    assert step.bound == "memory"
    assert cost.flops / step.seconds == pytest.approx(2.0e12, rel=0.03)
    assert cost.flops / step.seconds / A100.rate("bfloat16") == pytest.approx(0.0065, abs=0.0001)


def test_20_to_30_tflops_in_decode_need_batch_10_to_15() -> None:
    def achieved(batch: int) -> float:
        cost = decode_cost(LLAMA_70B, context=0, batch=batch)
        return cost.flops / time_at(cost, A100, "bfloat16").seconds

    # 20 TFLOP/s is reached at 10 and 30 at 15: to the nearest request.
    assert [round(achieved(batch) / 1e12) for batch in (10, 15)] == [20, 31]


def test_the_kv_of_104_sequences_equals_the_weights_70b_at_4k() -> None:
    def excess(batch: int) -> float:
        cost = decode_cost(LLAMA_70B, context=4096, batch=batch)
        return cost.kv_read_bytes - cost.weight_bytes

    crossing = next(batch for batch in range(1, 1000) if excess(batch) >= 0)
    assert abs(crossing - 104) <= 1


def test_eight_requests_cost_6_percent_more_than_one_8b_at_1k() -> None:
    one, eight = (decode_cost(LLAMA_8B, context=1024, batch=batch).bytes for batch in (1, 8))
    assert eight / one == pytest.approx(1.06, abs=0.005)


def test_prefill_and_decode_are_special_cases_of_a_step() -> None:
    assert decode_cost(LLAMA_8B, 100, batch=3) == step_cost(LLAMA_8B, [1, 1, 1], [100, 100, 100])
    assert prefill_cost(LLAMA_8B, 7, context=5, batch=2) == step_cost(LLAMA_8B, [7, 7], [5, 5])


def test_the_roof_that_takes_longer_bounds() -> None:
    cost = Cost(
        linear_flops=312 * 10**12, attention_flops=0, weight_bytes=0, kv_read_bytes=0, kv_write_bytes=1
    )
    step = time_at(cost, A100, "bfloat16")
    assert (step.seconds, step.bound) == (1.0, "compute")
    assert time_at(replace(cost, weight_bytes=2 * 2.039e12), A100, "bfloat16").bound == "memory"


def test_a_rate_that_a_machine_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"float8_e4m3fn.*bfloat16"):
        ridge(A100, "float8_e4m3fn")


@pytest.mark.parametrize("name", KNOWN_GPUS)
def test_a_known_gpu_says_where_its_figures_are_from_and_halves_with_each_doubling_of_width(
    name: str,
) -> None:
    gpu = KNOWN_GPUS[name]
    assert not gpu.measured and len(gpu.source) > 30
    assert gpu.rate("float32") < gpu.rate("bfloat16") == gpu.rate("float16") < gpu.rate("int8")
    assert gpu.rate("int8") / gpu.rate("bfloat16") in (pytest.approx(2, rel=1e-3), pytest.approx(4, rel=1e-3))
