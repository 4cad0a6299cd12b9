"""Scales that are folded in change no output, in any family; and what AWQ and SmoothQuant choose."""

import pytest
import torch

from minillm.model.linear import Linear
from minillm.model.transformer import Norm
from minillm.quantization.awq import LIMITS, awq_scale, best_scales, clip, folded, quadratic, search
from minillm.quantization.calibration import Stream, record
from minillm.quantization.compare import compare
from minillm.quantization.folding import divide_norm
from minillm.quantization.outliers import plant_outliers
from minillm.quantization.rounding import Rounding, floats
from minillm.quantization.smoothquant import smooth, smooth_scale
from tests.model.zoo import sample, tokens

FAMILIES = ["llama", "biases", "gqa-1", "head_dim-apart", "qwen2", "qwen3-bias", "mistral-window", "gpt2"]
WINDOWS = [tokens(24, seed) for seed in range(4)]


def outputs(stream, block):
    return stream.after(block).residual


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_folding_leaves_the_outputs_of_a_block_unchanged(name, dtype):
    model = sample(name).model
    stream, block = Stream.of(model, WINDOWS), model.weights.blocks[0]
    inputs, after = record(stream, block)
    random = torch.Generator().manual_seed(0)
    roles = {"qkv", "gate_up"}
    if model.config.gated_mlp:
        roles.add("down")
    if model.config.kv_size == model.config.q_size:
        roles.add("o")
    scales = {
        role: torch.rand(x.shape[1], generator=random) * 8 + 0.1
        for role, x in inputs.items()
        if role in roles
    }
    changed, exact = folded(block, scales, dtype)
    assert not torch.allclose(changed.qkv.weight, block.qkv.weight, rtol=0.01)
    # A norm with a bias is stored rounded, so its fold is as exact as the dtype.
    tolerance = 2e-2 if dtype == torch.bfloat16 and name == "gpt2" else 2e-4
    assert torch.allclose(outputs(stream, changed), after.residual, rtol=tolerance, atol=tolerance)
    divided, _ = record(stream, changed)
    for role, x in inputs.items():
        assert torch.allclose(divided[role] * exact[role], x, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_awq_has_a_scale_for_each_projection_that_something_can_take_over(name):
    model = sample(name).model
    stream, block = Stream.of(model, WINDOWS), model.weights.blocks[1]
    inputs, _ = record(stream, block)
    grams = {role: x.t() @ x for role, x in inputs.items()}
    found = best_scales(stream, block, inputs, grams, Rounding(4, 32))
    expected = {"qkv", "gate_up"} | ({"down"} if name != "gpt2" else set())
    assert found.keys() == expected | ({"o"} if name in ("gqa-1", "gpt2") else set())


@pytest.mark.parametrize("name", FAMILIES)
def test_smoothing_leaves_the_outputs_of_a_block_unchanged(name):
    model = sample(name).model
    stream, block = Stream.of(model, WINDOWS), model.weights.blocks[0]
    smoothed, after = smooth(stream, block, torch.float32)
    assert torch.allclose(outputs(stream, smoothed), after.residual, rtol=2e-4, atol=2e-4)
    before, now = record(stream, block)[0]["qkv"], record(stream, smoothed)[0]["qkv"]
    x_max, w_max = before.abs().amax(0), block.qkv.weight.abs().amax(1)
    # With alpha = 1/2 inputs and weights of a channel become equally large.
    assert torch.allclose(now.abs().amax(0), (x_max * w_max).sqrt(), rtol=1e-3)
    assert torch.allclose(floats(smoothed)["qkv"].weight.abs().amax(1), (x_max * w_max).sqrt(), rtol=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_smooth_scale_by_hand(alpha):
    x_max, w_max = torch.tensor([8.0, 2.0, 0.0, 3.0]), torch.tensor([2.0, 0.5, 1.0, 0.0])
    expected = [8**alpha / 2 ** (1 - alpha), 2**alpha / 0.5 ** (1 - alpha), 1, 1]
    assert torch.allclose(smooth_scale(x_max, w_max, alpha), torch.tensor(expected))
    with pytest.raises(ValueError, match=r"alpha=1\.5: give 0"):
        smooth_scale(x_max, w_max, 1.5)


def test_a_norm_that_is_rounded_tells_by_what_it_really_divides():
    norm = Norm(torch.tensor([1.0, 0.3, 0.0, -2.0]))
    s = torch.tensor([3.0, 0.7, 5.0, 1.1])
    divided, exact = divide_norm(norm, s, torch.bfloat16)
    assert torch.equal(divided.weight.bfloat16().float(), divided.weight)
    assert torch.allclose(divided.weight * exact, norm.weight, rtol=1e-6)
    assert torch.allclose(exact, s, rtol=2**-7) and not torch.equal(exact, s)


def test_the_search_finds_the_channel_that_matters():
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(256, 32, generator=random), torch.randn(16, 32, generator=random)
    x[:, 5] *= 60
    rounding, gram = Rounding(3, 32), x.t() @ x

    def loss(trial):
        return quadratic(trial.weight.t() - weight, gram).sum()

    s = search(Linear(weight.t()), x.abs().mean(0), rounding, loss)
    assert s.argmax() == 5 and s[5] > 2 * s.median()
    scaled = Linear((rounding.nearest(weight * s) / s).t())
    assert loss(scaled) < 0.5 * loss(Linear(rounding.nearest(weight).t()))


def test_the_loss_over_alpha_is_a_u():
    random = torch.Generator().manual_seed(1)
    x, weight = torch.randn(256, 32, generator=random), torch.randn(64, 32, generator=random)
    x[:, 5] *= 60
    rounding, gram = Rounding(3, 32), x.t() @ x
    mean = x.abs().mean(0)
    losses = []
    for alpha in (0.0, 0.5, 2.0):
        s = awq_scale(mean, alpha)
        losses.append(quadratic(rounding.nearest(weight * s) / s - weight, gram).sum().item())
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_awq_scale_of_silent_and_of_equal_channels():
    assert torch.equal(awq_scale(torch.full((4,), 3.0), 0.5), torch.ones(4))
    assert awq_scale(torch.tensor([0.0, 1.0]), 0.5).isfinite().all()
    assert torch.equal(awq_scale(torch.tensor([0.1, 7.0]), 0.0), torch.ones(2))


def test_clipping_cuts_a_weight_that_nothing_needs_and_never_makes_a_group_worse():
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 16, generator=random), torch.randn(8, 16, generator=random)
    x[:, 3] = 0
    weight[:, 3] = 20
    rounding, gram = Rounding(4, 8), x.t() @ x
    cut = clip(weight, gram, rounding)
    assert (cut[:, 3] <= 20 * LIMITS[-2] + 1e-4).all()
    assert torch.equal(cut[:, 8:].sign(), weight[:, 8:].sign()) and (cut.abs() <= weight.abs()).all()
    for group in (slice(0, 8), slice(8, 16)):
        change = [
            quadratic((rounding.nearest(w) - weight)[:, group], gram[group, group]) for w in (weight, cut)
        ]
        assert (change[1] <= change[0] * (1 + 1e-5)).all()


@pytest.mark.parametrize("name", ["llama", "qwen3-bias", "gpt2"])
def test_planted_outliers_change_no_logit(name):
    model = sample(name).model
    planted = plant_outliers(model, [3, 40], 32)
    found = compare(planted, model, WINDOWS)
    assert found.kl < 1e-9 and found.agreement == 1
    before, after = (record(Stream.of(m, WINDOWS), m.weights.blocks[0])[0] for m in (model, planted))
    for role in ("qkv", "gate_up"):
        ratio = after[role] / before[role]
        assert torch.allclose(ratio[:, [3, 40]], torch.tensor(32.0), rtol=1e-3)
        assert torch.allclose(ratio[:, :3], torch.tensor(1.0), rtol=1e-3)


def test_channels_and_factors_that_make_no_sense_are_named():
    model = sample("llama").model
    with pytest.raises(ValueError, match="channel 64: this model has channels 0 to 63"):
        plant_outliers(model, [3, 64])
    for factor in (0, -2, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"factor={factor}: give"):
            plant_outliers(model, [3], factor)
