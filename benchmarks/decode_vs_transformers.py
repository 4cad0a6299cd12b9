"""How fast does one request decode, compared with `transformers.generate`? Same weights, greedy tokens and process.

    python benchmarks/decode_vs_transformers.py

Both sides use float32 on a CPU and bfloat16 on a GPU, and are measured alternately. The time is that of generating
`--tokens` tokens after a 16-token prompt. It includes prefill, which is short. The models are the bundled tinytales and
a Llama of 100M parameters with random weights (the speed does not depend on their values).
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from _rows import arguments, report
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from minillm import LLM, SamplingParams
from minillm.llm import model_folder
from minillm.measure.timing import interleaved, ratio_of, spread_of


def llama_100m(folder: Path) -> Path:
    """A Llama of 102M parameters: 12 layers of width 768, vocabulary 16,384, embeddings tied."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16_384,
        hidden_size=768,
        intermediate_size=2_048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2_048,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def compare(
    name: str, folder: Path, num_tokens: int, rounds: int, device: str, floor: float
) -> list[dict[str, Any]]:
    """Tokens per second of both sides, and ours over theirs."""
    llm = LLM(folder, device=device, max_num_seqs=1, max_model_len=512, enable_prefix_caching=False)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=llm.model.dtype).to(device).eval()
    prompt = [i * 37 % llm.model.config.vocab_size for i in range(1, 17)]
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
    inputs = torch.tensor([prompt], device=device)

    def ours() -> list[int]:
        return llm.generate([prompt], params)[0].outputs[0].token_ids

    def transformers() -> list[int]:
        out = theirs.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        found: list[int] = out[0, len(prompt) :].tolist()
        return found

    times = interleaved({"minillm": ours, "transformers": transformers}, rounds, device=device)
    if ours() != transformers():
        raise SystemExit(f"{name}: the two sides wrote different tokens, so their speeds cannot be compared")
    ratio = ratio_of(times["transformers"], times["minillm"])
    dtype = str(llm.model.dtype).removeprefix("torch.")
    what = f"{name}, {llm.model.config.num_parameters / 1e6:.1f}M parameters, {dtype}, {num_tokens} tokens"
    llm.close()
    rows: list[dict[str, Any]] = [
        {"name": f"{what}: {side}", "value": num_tokens / spread_of(seconds).median, "unit": "tok/s"}
        for side, seconds in times.items()
    ]
    limits = {"floor": floor} if device == "cpu" else {}
    rows.append(
        {"name": f"{what}: minillm / transformers", "value": ratio.median, "unit": "x", **limits}
        | {"low": ratio.low, "high": ratio.high, "rounds": rounds}
    )
    return rows


def main() -> None:
    args = arguments(__doc__, tokens=128, rounds=7)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = (args.tokens, args.rounds, args.device)
        rows = compare("tinytales", model_folder("tinytales"), *sizes, floor=2.0)
        rows += compare("random Llama", llama_100m(Path(scratch)), *sizes, floor=1.3)
    report(rows, args)


if __name__ == "__main__":
    main()
