"""Random EAGLE-3 heads in the published format for small models, and what a plain torch reference makes of them."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.engine import tiny

DRAFT_VOCAB = 120
IDS = [1, 1, 1]  # the tiny model has two layers, and this is the only one that they may name


def tensors(
    config: dict, draft_vocab: int, vocab: int, seed: int = 0, scale: float = 0.3
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h, m = config["hidden_size"], config["intermediate_size"]
    d = h // config["num_attention_heads"]
    kv = d * config["num_key_value_heads"]
    shapes = {
        "fc.weight": (h, 3 * h),
        "midlayer.hidden_norm.weight": (h,),
        "midlayer.input_layernorm.weight": (h,),
        "midlayer.post_attention_layernorm.weight": (h,),
        "midlayer.self_attn.q_proj.weight": (h, 2 * h),
        "midlayer.self_attn.k_proj.weight": (kv, 2 * h),
        "midlayer.self_attn.v_proj.weight": (kv, 2 * h),
        "midlayer.self_attn.o_proj.weight": (h, h),
        "midlayer.mlp.gate_proj.weight": (m, h),
        "midlayer.mlp.up_proj.weight": (m, h),
        "midlayer.mlp.down_proj.weight": (h, m),
        "norm.weight": (h,),
        "lm_head.weight": (draft_vocab, h),
    }
    made = {
        name: torch.randn(shape, generator=generator) * scale + (len(shape) == 1)
        for name, shape in shapes.items()
    }
    ids = torch.randperm(vocab, generator=generator)[:draft_vocab].sort().values
    t2d = torch.zeros(vocab, dtype=torch.bool)
    t2d[ids] = True
    return made | {"d2t": ids - torch.arange(draft_vocab), "t2d": t2d}


def config_for(model: dict, draft_vocab: int, **changes: object) -> dict:
    """config.json of a head for a model's config.json."""
    sizes = (
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "max_position_embeddings",
    )
    return {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        **{name: model[name] for name in sizes},
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "draft_vocab_size": draft_vocab,
    } | changes


def write(folder: Path, config: dict, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def for_tiny(folder: Path) -> Path:
    """A head for the tiny model, whose config.json names its layers."""
    model = json.loads((tiny.folder() / "config.json").read_text())
    config = config_for(model, DRAFT_VOCAB, eagle_config={"eagle_aux_hidden_state_layer_ids": IDS})
    return write(folder, config, tensors(config, DRAFT_VOCAB, tiny.VOCAB_SIZE))


class Reference:
    """The algorithm on whole sequences, without a cache: rows (token p + 1, feature p), then the head's own output."""

    def __init__(self, model, weights: dict[str, torch.Tensor], config: dict, ids: list[int]) -> None:
        self.model, self.w, self.c, self.ids = model, weights, config, ids

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.w[name + ".weight"], self.c["rms_norm_eps"])

    def turn(self, x):  # [n, heads, D]
        size = x.shape[-1]
        angles = torch.arange(len(x))[:, None] * 10_000.0 ** (-torch.arange(0, size, 2) / size)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        a, b = x[..., : size // 2], x[..., size // 2 :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def layer(self, embedded, g):
        """Every row of the layer: its logits and its output, the next feature."""
        h, heads, kv = (self.c[x] for x in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
        normed = self.norm(g, "midlayer.hidden_norm")
        residual = normed if self.c.get("norm_before_residual") else g
        x = torch.cat((self.norm(embedded, "midlayer.input_layernorm"), normed), -1)
        q, k, v = (x @ self.w[f"midlayer.self_attn.{name}_proj.weight"].T for name in "qkv")
        q, k, v = q.view(len(x), heads, -1), k.view(len(x), kv, -1), v.view(len(x), kv, -1)
        q, k = self.turn(q), self.turn(k)
        k, v = (t.repeat_interleave(heads // kv, 1).transpose(0, 1) for t in (k, v))
        out = F.scaled_dot_product_attention(q.transpose(0, 1), k, v, is_causal=True).transpose(0, 1)
        residual = residual + out.reshape(len(x), h) @ self.w["midlayer.self_attn.o_proj.weight"].T
        x = self.norm(residual, "midlayer.post_attention_layernorm")
        gate, up = (x @ self.w[f"midlayer.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        out = residual + (F.silu(gate) * up) @ self.w["midlayer.mlp.down_proj.weight"].T
        return self.norm(out, "norm") @ self.w["lm_head.weight"].T, out

    @torch.no_grad()
    def drafts(self, token_ids: list[int], count: int) -> list[int]:
        """The drafts after `token_ids`, of which the model has computed all but the last one."""
        embed = self.w.get("embed_tokens.weight", self.model.get_input_embeddings().weight)
        hidden = self.model(torch.tensor([token_ids[:-1]]), output_hidden_states=True).hidden_states
        g = torch.cat([hidden[i][0] for i in self.ids], -1) @ self.w["fc.weight"].T
        ids, found = token_ids[1:], []
        for _ in range(count):
            logits, out = self.layer(embed[torch.tensor(ids)], g)
            entry = int(logits[-1].argmax())
            found.append(entry + int(self.w["d2t"][entry]))
            ids, g = [*ids, found[-1]], torch.cat((g, out[-1:]))
        return found
