"""AWQ: protect the weights whose inputs are large, by scaling them up before they are rounded.

Rounding moves a weight by up to half a step of its group, whatever its size. If a weight is multiplied by s > 1 and its
input divided by s, the error in the product shrinks by s, as long as the step stays the same. So channels with large
inputs get a large s. Too large an s widens the step for the whole group. How far to go is found by trying: s is the
mean |x| to the power alpha, with the alpha that changes the layer's output least. All weights have equally many bits.
The division is folded into the operation before.

Source: Lin et al. 2023 (arXiv 2306.00978), section 3. The search and the clipping are those of the authors' code.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minillm.model.linear import Linear
from minillm.model.transformer import Block
from minillm.quantization.calibration import Stream, gram, record
from minillm.quantization.folding import NORMS, divide_rows, fold_into_norm, multiply_columns
from minillm.quantization.rounding import Rounding, floats, replaced

ALPHAS = [r / 20 for r in range(20)]
LIMITS = [1 - i / 20 for i in range(10)]
SEARCH_TOKENS = 1024  # for losses that run a whole attention or MLP; the others use all tokens

Loss = Callable[[Linear], Tensor]  # of a projection with a rounded weight: how much the output changes


def awq_scale(mean: Tensor, alpha: float) -> Tensor:
    """Return s [in] for inputs with a mean |x| of `mean` [in]: mean^alpha, with 1 in the middle of its range."""
    s = (mean**alpha).clamp_min(1e-4)
    return s / (s.max() * s.min()).sqrt()


def search(linear: Linear, mean: Tensor, rounding: Rounding, loss: Loss) -> Tensor:
    """Return the s [in], of one for each alpha, with the smallest loss of the projection with weight Q(W s) / s."""
    weight = linear.weight.t()

    def loss_of(s: Tensor) -> float:
        return loss(Linear((rounding.nearest(weight * s) / s).t(), linear.bias)).item()

    return min((awq_scale(mean, alpha) for alpha in ALPHAS), key=loss_of)


def clip(weight: Tensor, gram: Tensor, rounding: Rounding) -> Tensor:
    """Return a weight [out, in] with the largest numbers of each group cut, where that improves the group's output.

    `gram` is X^T X [in, in] of the inputs. A group is cut at 100, 95, ... or 55 % of its largest |w|, whichever changes
    its part of the output least: the other weights gain from a smaller step.
    """
    num_groups = rounding.grid(weight).scale.shape[1]
    size = weight.shape[1] // num_groups
    own = torch.stack(
        [gram[i : i + size, i : i + size] for i in range(0, len(gram), size)]
    )  # [groups, size, size]
    groups = weight.unflatten(1, (num_groups, size))  # [out, groups, size]
    highest = groups.abs().amax(-1, keepdim=True)
    best, least = groups, torch.full(groups.shape[:2], torch.inf)
    for limit in LIMITS:
        cut = groups.clamp(-limit * highest, limit * highest)
        rounded = rounding.nearest(cut.flatten(1)).view_as(groups)
        change = quadratic((rounded - groups).transpose(0, 1), own).t()  # [out, groups]
        better = change < least
        best, least = torch.where(better[..., None], cut, best), torch.where(better, change, least)
    clipped: Tensor = best.flatten(1)
    return clipped


def quadratic(change: Tensor, gram: Tensor) -> Tensor:
    """Return d G d^T for each row d of change [..., out, in], with G = X^T X: the squared change of its outputs."""
    return ((change @ gram) * change).sum(-1)


def awq_block(stream: Stream, block: Block, rounding: Rounding) -> tuple[Block, Stream]:
    """Return a block that is scaled, clipped and then rounded to nearest, and the stream after the float block."""
    inputs, after = record(stream, block)
    grams = {role: gram(x) for role, x in inputs.items()}
    wanted = best_scales(stream, block, inputs, grams, rounding)
    block, scales = folded(block, wanted, rounding.dtype)
    grams = {role: gram / torch.outer(scales[role], scales[role]) for role, gram in grams.items()}
    return rounding.rtn(clipped(block, grams, rounding, stream.model.config.kv_size)), after


def best_scales(
    stream: Stream, block: Block, inputs: dict[str, Tensor], grams: dict[str, Tensor], rounding: Rounding
) -> dict[str, Tensor]:
    """Return by role the s [in] of each projection that has something before it to be folded into.

    q, k and v are judged by the output of the whole attention, gate and up by that of the whole MLP, down and o by
    their own. `down` follows the rows of up in a gated MLP, and `o` those of v if there are as many as o has columns.
    """
    linears, part, ops = floats(block), stream.part(SEARCH_TOKENS), stream.model.ops

    def output_change(role: str, run: Callable[[Block], Tensor]) -> Loss:
        wanted = run(block)
        return lambda trial: (run(replaced(block, {role: trial})) - wanted).square().mean()

    def own_change(role: str) -> Loss:
        return lambda trial: quadratic((trial.weight - linears[role].weight).t(), grams[role]).sum()

    x, rows = part.normed(block), inputs["gate_up"][:: max(1, len(stream.residual) // SEARCH_TOKENS)]
    losses = {
        "qkv": output_change("qkv", lambda changed: part.attention(changed, x)),
        "gate_up": output_change("gate_up", lambda changed: changed.mlp(rows, ops)),
    }
    if is_gated(linears):
        losses["down"] = own_change("down")
    if len(linears["o"].weight) == stream.model.config.kv_size:
        losses["o"] = own_change("o")
    return {
        role: search(linears[role], inputs[role].abs().mean(0), rounding, loss)
        for role, loss in losses.items()
    }


def is_gated(linears: dict[str, Linear]) -> bool:
    """Return whether the MLP multiplies by the outputs of up, so that they can be divided without changing the gate."""
    return linears["gate_up"].weight.shape[1] == 2 * linears["down"].weight.shape[0]


def folded(block: Block, scales: dict[str, Tensor], dtype: torch.dtype) -> tuple[Block, dict[str, Tensor]]:
    """Return a block with the same outputs, and by role the s [in] by which the inputs of its projections are divided.

    Norms are stored as `dtype`, so their s differs a little from the given one.
    """
    scales = dict(scales)
    for role in NORMS:
        block, scales[role] = fold_into_norm(block, role, scales[role], dtype)
    for role, before in (("down", "gate_up"), ("o", "qkv")):
        linears = floats(block)
        s = scales.setdefault(role, torch.ones(len(linears[role].weight)))
        divided = {before: divide_rows(linears[before], s), role: multiply_columns(linears[role], s)}
        block = replaced(block, divided)
    return block, scales


def clipped(block: Block, grams: dict[str, Tensor], rounding: Rounding, kv_size: int) -> Block:
    """Return a float block with clipped weights. q and k stay whole, because attention judges them together."""
    linears = floats(block)
    for role, linear in linears.items():
        weight = linear.weight.t().clone()
        rows = slice(-kv_size, None) if role == "qkv" else slice(None)
        weight[rows] = clip(weight[rows], grams[role], rounding)
        linears[role] = Linear(weight.t(), linear.bias)
    return replaced(block, linears)
