"""Cases of `flash_attention`: what it computes against its definition in float64, and the launches to be compiled."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from minillm import ops
from minillm.kernels import flash_attention as module
from minillm.kernels.flash_attention import Config, flash_attention
from tests.kernels.offline import Launch

NAN = float("nan")


def forward(
    shape: tuple[int, int, int, int, int, int],
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    blocks: tuple[int, int] | None = None,
    **options: Any,
) -> dict[str, float]:
    """How far out and lse are from float64's, by norm. `shape` is B, S_q, S_k, H, H_kv, D; `blocks` M and N."""
    q, k, v = _inputs(shape, dtype, device)
    with _blocks(blocks):
        out, lse = _poisoned(lambda: flash_attention(q, k, v, return_lse=True, **options))
    right, right_lse = ops.flash_attention(q.double(), k.double(), v.double(), return_lse=True, **options)
    empty = right_lse == -torch.inf  # rows that see no key: to be exactly zero, and -inf
    assert out.dtype == dtype and lse.dtype == torch.float32
    assert torch.equal(lse == -torch.inf, empty)
    assert not out.transpose(1, 2)[empty].any()
    return {"out": _distance(out, right), "lse": _distance(lse[~empty], right_lse[~empty])}


def backward(
    shape: tuple[int, int, int, int, int, int],
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    blocks: tuple[int, int] | None = None,
    **options: Any,
) -> dict[str, float]:
    """How far dq, dk and dv are from autograd's through the definition in float64, by norm."""
    tensors = [x.requires_grad_() for x in _inputs(shape, dtype, device)]
    doubles = [x.detach().double().requires_grad_() for x in tensors]
    right = ops.flash_attention(*doubles, **options)
    # Not contiguous, as a gradient that comes through a transpose.
    d_out = _normal((shape[0], shape[3], shape[1], shape[5]), 3).to(device, dtype).transpose(1, 2)
    with _blocks(blocks):
        out = flash_attention(*tensors, **options)
        found = _poisoned(lambda: torch.autograd.grad(out, tensors, d_out))
    expected = torch.autograd.grad(right, doubles, d_out.double())
    assert all(x.dtype == dtype for x in found)
    return {name: _distance(*pair) for name, *pair in zip(("dq", "dk", "dv"), found, expected, strict=True)}


def large_scores(device: str = "cpu") -> dict[str, float]:
    """Scores in the thousands that rise along the row, so that every tile raises the maximum."""
    q, k, v = _inputs((1, 40, 40, 1, 1, 16), torch.float32, device)
    k = k + torch.arange(40, device=device)[None, :, None, None] * q.mean(1, keepdim=True)
    with _blocks((16, 16)):
        out = flash_attention(q, k, v, scale=50.0)
    return {"out": _distance(out, ops.flash_attention(q.double(), k.double(), v.double(), scale=50.0))}


def of_nothing(shape: tuple[int, int, int, int, int, int]) -> tuple[float, float]:
    """The largest of out and of all gradients where there are no sequences, no queries or no keys."""
    tensors = [x.requires_grad_() for x in _inputs(shape, torch.float32, "cpu")]
    out = _poisoned(lambda: flash_attention(*tensors))
    grads = _poisoned(lambda: torch.autograd.grad(out, tensors, torch.ones_like(out)))
    return out.abs().sum().item(), sum(x.abs().sum().item() for x in grads)


def kept(shape: tuple[int, int, int, int, int, int]) -> list[tuple[int, ...]]:
    """Shapes of what the forward pass keeps for the backward pass."""
    tensors = [x.requires_grad_() for x in _inputs(shape, torch.float32, "cpu")]
    shapes: list[tuple[int, ...]] = []

    def note(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        flash_attention(*tensors)
    return shapes


def with_gradients() -> tuple[bool, bool]:
    """Whether out and lse ask for a gradient where q, k and v do."""
    out, lse = flash_attention(
        *(x.requires_grad_() for x in _inputs((1, 4, 4, 1, 1, 16), torch.float32, "cpu")), return_lse=True
    )
    return out.requires_grad, lse.requires_grad


def repeated_gradients(device: str, dtype: torch.dtype) -> bool:
    """Whether two backward passes give the same bits."""
    tensors = [x.requires_grad_() for x in _inputs((2, 500, 500, 4, 2, 64), dtype, device)]
    first, second = (torch.autograd.grad(flash_attention(*tensors).sum(), tensors) for _ in range(2))
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def refused(change: dict[str, Any], **options: Any) -> None:
    """Call it with shapes, dtypes or strides changed: `change` maps q, k or v to a tensor's description."""
    tensors = dict(zip("qkv", _inputs((1, 4, 4, 4, 2, 32), torch.float32, "cpu"), strict=True))
    for name, what in change.items():
        if isinstance(what, torch.dtype):
            tensors[name] = tensors[name].to(what)
        elif what == "transposed":
            tensors[name] = tensors[name].transpose(1, 3).contiguous().transpose(1, 3)
        elif what == "wide":
            tensors[name] = torch.zeros(1, 4, 2, 257, dtype=torch.float16)
        elif what == "meta":
            tensors[name] = tensors[name].to("meta")
        else:
            tensors[name] = torch.zeros(what)
    flash_attention(**tensors, **options)


def launch(head_dim: int, dtype: torch.dtype, backward: bool = False, **options: Any) -> None:
    """A call on `meta` tensors, as of a model with 32 heads and 8 KV heads."""
    q, k, v = (
        torch.empty(2, 4096, heads, head_dim, dtype=dtype, device="meta", requires_grad=backward)
        for heads in (32, 8, 8)
    )
    out = flash_attention(q, k, v, **options)
    if backward:
        out.backward(torch.empty_like(out))


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _inputs(
    shape: tuple[int, int, int, int, int, int], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, each in the middle of memory that is NaN: a read beyond the end shows in every result."""
    batch, num_queries, num_keys, num_heads, num_kv_heads, head_dim = shape
    found = []
    for seed, (rows, heads) in enumerate(
        [(num_queries, num_heads), (num_keys, num_kv_heads), (num_keys, num_kv_heads)]
    ):
        around = torch.full((batch, rows + 5, heads, head_dim + 8), NAN, dtype=dtype, device=device)
        middle = around[:, 2:-3, :, :head_dim]
        middle.copy_(_normal((batch, rows, heads, head_dim), seed))
        found.append(middle)
    return found[0], found[1], found[2]


def _poisoned(call: Any) -> Any:
    """Return the result of `call` when all memory for its results is filled with NaN first."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # torch.empty then fills with NaN
    try:
        assert torch.empty(8).isnan().all()
        return call()
    finally:
        torch.use_deterministic_algorithms(before)


def _blocks(blocks: tuple[int, int] | None) -> AbstractContextManager[Any]:
    """Tiles of M queries and N keys instead of those shipped: small ones put many edges into a small case."""
    if blocks is None:
        return nullcontext()
    small = Config(*blocks, num_warps=4, num_stages=2)
    return mock.patch.object(module, "config_for", return_value=small)


def _distance(found: Tensor, right: Tensor) -> float:
    """||found - right|| / ||right||; NaN if there is one in `found`."""
    assert found.shape == right.shape
    return ((found.double() - right).norm() / right.norm()).item()


def _launches() -> list[Launch]:
    """Both passes at every entry of the table, whole rows and padded ones; each kind of mask at one of them."""
    masks: dict[str, dict[str, Any]] = {"causal": {}, "full": {"causal": False}, "window": {"window": 1024}}
    half = {32: "causal", 64: "causal", 80: "window", 128: "causal", 160: "full", 256: "window"}
    found = []
    for head_dim, mask in half.items():
        kwargs = {"head_dim": head_dim, "dtype": torch.bfloat16, "backward": True} | masks[mask]
        found.append(Launch(f"flash {head_dim} {mask}", launch, kwargs, slow=True))
    for head_dim in (16, 64, 128):
        kwargs = {"head_dim": head_dim, "dtype": torch.float32, "backward": True}
        found.append(Launch(f"flash {head_dim} causal float32", launch, kwargs, dots=False, slow=True))
    return found


LAUNCHES = _launches()
