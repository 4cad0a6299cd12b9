"""The shapes of a few well-known models, so that a claim about them can be computed without their weights.

Source: each repository's config.json on huggingface.co, named in the comment above its entry.
"""

from dataclasses import replace

from minillm.config import ModelConfig, RopeConfig

# meta-llama/Meta-Llama-3-8B
LLAMA_3_8B = ModelConfig(
    family="llama",
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=8192,
    rope=RopeConfig(theta=500_000.0),
    norm_eps=1e-5,
    bos_token_id=128_000,
    eos_token_ids=(128_001,),
    dtype="bfloat16",
)

KNOWN_MODELS = {
    # meta-llama/Llama-2-7b-hf
    "llama_2_7b": replace(
        LLAMA_3_8B,
        vocab_size=32_000,
        intermediate_size=11_008,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rope=RopeConfig(theta=10_000.0),
        bos_token_id=1,
        eos_token_ids=(2,),
        dtype="float16",
    ),
    "llama_3_8b": LLAMA_3_8B,
    # meta-llama/Meta-Llama-3-70B
    "llama_3_70b": replace(
        LLAMA_3_8B,
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
    ),
    # Qwen/Qwen3-0.6B
    "qwen3_0_6b": replace(
        LLAMA_3_8B,
        family="qwen3",
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        max_position_embeddings=40_960,
        rope=RopeConfig(theta=1_000_000.0),
        norm_eps=1e-6,
        qk_norm=True,
        tie_word_embeddings=True,
        bos_token_id=151_643,
        eos_token_ids=(151_645,),
    ),
}
