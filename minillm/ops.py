"""Every hot operation by name, with the torch code that defines it.

This is the one seam between the model and the kernels: the model is handed an `Ops` and calls nothing else for
these steps. An entry's torch definition below *is* its meaning; a faster one may stand in its place if it
computes the same. All of them are flat over the T tokens of a step (see batch.py).
"""

import importlib.util
import os
import warnings
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Batch, ReadAlone
from minillm.cpu import linear as cpu_linear
from minillm.sparse_attention import Pattern


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W + b of rows x [T, in], with a weight [in, out] of any memory order and a bias [out] or None."""
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The new residual stream `x + residual`, and its norm: what stands between two blocks of a decoder."""
    residual = residual + x
    return rms_norm(residual, weight, eps), residual


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) by its position's angle (Su et al. 2021, arXiv 2104.09864).

    x [T, H, D]; cos and sin [T, 1, D], where the first half of `sin` carries the minus sign of the rotation,
    so that swapping the halves of x is all that is left to do.
    """
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of the fused projection [T, 2 M] -> [T, M] (Shazeer 2020, arXiv 2002.05202)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Put each token's key and value [T, H_kv, D] into its slot of the cache [blocks, block_size, H_kv, D]."""
    k_cache.view(-1, *k.shape[1:]).index_copy_(0, slot_mapping, k)
    v_cache.view(-1, *v.shape[1:]).index_copy_(0, slot_mapping, v)


def causal_mask(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """[num_queries, num_keys], true where a query sees a key. The last query stands at the last key."""
    i = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    j = torch.arange(num_keys, device=device)
    return (j <= i) if window is None else (j <= i) & (j > i - window)


def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Causal attention of one sequence: q [n, H, D] are its last n tokens, k and v [s, H_kv, D] all of them.

    softmax(q k^T / sqrt(D)) v (Vaswani et al. 2017); each KV head serves H / H_kv query heads (GQA, Ainslie
    et al. 2023, arXiv 2305.13245) without being copied for them.
    """
    n, num_heads, head_dim = q.shape
    num_keys, num_kv_heads, _ = k.shape
    if n == 1:
        # One query sees every key: the heads that share a KV head become its queries, and no mask is needed.
        if window is not None and num_keys > window:
            k, v = k[-window:], v[-window:]
        grouped = q.view(1, num_kv_heads, num_heads // num_kv_heads, head_dim)
        out = F.scaled_dot_product_attention(grouped, k.transpose(0, 1)[None], v.transpose(0, 1)[None])
        return out.reshape(1, num_heads, head_dim)
    plain = n == num_keys and (window is None or num_keys <= window)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None],  # [1, H, n, D]
        k.transpose(0, 1)[None],  # [1, H_kv, s, D]
        v.transpose(0, 1)[None],
        attn_mask=None if plain else causal_mask(n, num_keys, window, q.device),
        is_causal=plain,
        enable_gqa=num_heads != num_kv_heads,
    )
    return out[0].transpose(0, 1)


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale q k^T) v of whole sequences, written out: what `minillm.kernels.flash_attention` must compute.

    q [B, S_q, H, D], k and v [B, S_k, H_kv, D]; the log-sum-exp of each row's scores is [B, H, S_q]. Computes in
    float32 (float64 stays). A row that sees no key, as the first ones where S_q > S_k, gets zeros.
    """
    float_dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[2] // k.shape[2]
    keys, values = (x.to(float_dtype).repeat_interleave(group, dim=2) for x in (k, v))  # [B, S_k, H, D]
    scores = torch.einsum("bihd,bjhd->bhij", q.to(float_dtype), keys)  # all that the kernel never writes
    scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(~causal_mask(q.shape[1], k.shape[1], window, q.device), float("-inf"))
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse.where(lse != float("-inf"), 0)[..., None]).exp()
    out = torch.einsum("bhij,bjhd->bihd", weights, values).to(q.dtype)
    return (out, lse) if return_lse else out


def self_attention(q: Tensor, k: Tensor, v: Tensor, batch: Batch, window: int | None) -> Tensor:
    """Attention where there is no cache: every request's tokens [T, H, D] see only this step's own."""
    out, start = torch.empty_like(q), 0
    for chunk in batch.chunks:
        rows = slice(start, start := start + len(chunk.token_ids))
        out[rows] = attend(q[rows], k[rows], v[rows], window)
    return out


def attend_each(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of R tokens q [R, H, D], each over its own row of k and v [R, S, H_kv, D], with `mask` [R, 1, 1, S]
    added to the scores."""
    num_requests, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[2]
    out = F.scaled_dot_product_attention(
        q.view(num_requests, num_kv_heads, num_heads // num_kv_heads, head_dim),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
    )
    return out.reshape(num_requests, num_heads, head_dim)


def paged_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, batch: Batch, window: int | None) -> Tensor:
    """Attention of each request's new tokens [T, H, D] over all its tokens in the cache.

    k_cache and v_cache are [blocks, block_size, H_kv, D]. A kernel reads them where they lie; here, blocks that do not
    follow one another are gathered first, for one request, or for several of like length that decode (`Batch.reads`).
    """
    reads = batch.reads
    k_slots, v_slots = k_cache.flatten(0, 1), v_cache.flatten(0, 1)  # [slots, H_kv, D]
    if len(reads) == 1 and isinstance(reads[0], ReadAlone):
        return _attend_alone(q, k_slots, v_slots, reads[0], window)
    out = torch.empty_like(q)
    for read in reads:
        if isinstance(read, ReadAlone):
            out[read.rows] = _attend_alone(q[read.rows], k_slots, v_slots, read, window)
        else:
            shape = (*read.ages.shape, *k_slots.shape[1:])  # [R, S, H_kv, D]
            k, v = (x.index_select(0, read.slots).view(shape) for x in (k_slots, v_slots))
            each = attend_each(q.index_select(0, read.rows), k, v, read.mask(window, q.dtype))
            out.index_copy_(0, read.rows, each)
    return out


def sparse_paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, batch: Batch, window: int | None
) -> Tensor:
    """The same for a CPU: all tokens but those of long prompts read their keys where they lie (sparse_attention.py)."""
    key = (q.shape[1], k_cache.shape, window, q.dtype)
    if key not in batch.plans:
        batch.plans[key] = Pattern.of(batch, *key)
    pattern: Pattern | None = batch.plans[key]
    if pattern is None:
        return paged_attention(q, k_cache, v_cache, batch, window)
    if not pattern.others:
        return pattern.attend(q, k_cache, v_cache)
    out = torch.empty_like(q)
    out.index_copy_(0, pattern.rows, pattern.attend(q.index_select(0, pattern.rows), k_cache, v_cache))
    k_slots, v_slots = k_cache.flatten(0, 1), v_cache.flatten(0, 1)
    for read in pattern.others:
        out[read.rows] = _attend_alone(q[read.rows], k_slots, v_slots, read, window)
    return out


def _attend_alone(q: Tensor, k_slots: Tensor, v_slots: Tensor, read: ReadAlone, window: int | None) -> Tensor:
    """q [n, H, D] of one request over its tokens in k_slots and v_slots [slots, H_kv, D]."""
    if isinstance(read.slots, slice):
        return attend(q, k_slots[read.slots], v_slots[read.slots], window)
    return attend(q, k_slots.index_select(0, read.slots), v_slots.index_select(0, read.slots), window)


class _Linear(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...


class _RmsNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...


class _AddRmsNorm(Protocol):
    def __call__(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]: ...


class _Rope(Protocol):
    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor: ...


class _SwiGlu(Protocol):
    def __call__(self, gate_up: Tensor) -> Tensor: ...


class _WriteKV(Protocol):
    def __call__(
        self, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor
    ) -> None: ...


class _Attention(Protocol):
    def __call__(
        self, q: Tensor, k_cache: Tensor, v_cache: Tensor, batch: Batch, window: int | None
    ) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Ops:
    """The operations a model runs on; the defaults are the definitions above."""

    linear: _Linear = linear
    rms_norm: _RmsNorm = rms_norm
    add_rms_norm: _AddRmsNorm = add_rms_norm
    rope: _Rope = rope
    swiglu: _SwiGlu = swiglu
    write_kv: _WriteKV = write_kv
    paged_attention: _Attention = paged_attention

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls))


def ops_for(device: torch.device) -> Ops:
    """The Triton kernels on a GPU that runs them, else the definitions above; on a CPU, its own attention.

    `MINILLM_KERNELS=off` asks for the definitions everywhere; one by one, `minillm.swap(rope=minillm.ops.rope)` does.
    `MINILLM_KERNELS=interpret` runs the kernels on a CPU, slowly, in Triton's interpreter, which must be on
    (`TRITON_INTERPRET=1`) before anything imports triton. Raises `ValueError` for another word, `RuntimeError` where
    the interpreter is off.
    """
    wanted = os.environ.get("MINILLM_KERNELS", "")
    if wanted not in ("", "off", "interpret"):
        raise ValueError(f"MINILLM_KERNELS={wanted!r}: 'off', 'interpret' or nothing")
    if wanted == "interpret":
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise RuntimeError(
                "MINILLM_KERNELS=interpret needs TRITON_INTERPRET=1 from the start of the process"
            )
    elif wanted == "" and device.type == "cpu":
        return Ops(
            linear=cpu_linear.linear if cpu_linear.is_faster_here() else linear,
            paged_attention=sparse_paged_attention,
        )
    elif wanted == "off" or device.type != "cuda" or not _runs_kernels(device):
        return Ops()
    from minillm.kernels import cache_write, paged_attention, rms_norm, rope, swiglu

    return Ops(
        rms_norm=rms_norm.rms_norm,
        add_rms_norm=rms_norm.add_rms_norm,
        rope=rope.rope,
        swiglu=swiglu.swiglu,
        write_kv=cache_write.write_kv,
        paged_attention=paged_attention.paged_attention,
    )


def _runs_kernels(device: torch.device) -> bool:
    """Whether Triton is there and the GPU is of the Ampere generation or newer; says so once where it is not."""
    if importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed"
    elif (capability := torch.cuda.get_device_capability(device)) < (8, 0):
        reason = (
            f"they need compute capability 8.0, and {torch.cuda.get_device_name(device)} has {capability}"
        )
    else:
        return True
    warnings.warn(f"no Triton kernels: {reason}. PyTorch's own operations run instead", stacklevel=4)
    return False
