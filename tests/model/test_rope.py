"""Angles against those of `transformers`, for parameters far from any released model's too."""

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from minillm.config import RopeConfig
from minillm.model.rope import inverse_frequencies, rope_table

thetas = st.floats(1.5, 1e7)
LENGTHS = {"original_max_position_embeddings": st.integers(1, 200_000)}
SCALED = {
    "linear": {"factor": st.floats(0.25, 64)},
    "llama3": {
        "factor": st.floats(0.25, 64),
        "low_freq_factor": st.floats(0.5, 2),
        "high_freq_factor": st.floats(2.5, 8),
        **LENGTHS,
    },
    "yarn": {
        "factor": st.floats(0.25, 64),
        "beta_fast": st.floats(1.5, 64),
        "beta_slow": st.floats(0.25, 64),
        "attention_factor": st.none() | st.floats(0.5, 2),
        "truncate": st.booleans(),
        **LENGTHS,
    },
}


@pytest.mark.parametrize("kind", SCALED)
@given(data=st.data())
def test_scaled_frequencies(kind, data):
    head_dim, theta = data.draw(st.sampled_from([2, 8, 64, 128])), data.draw(thetas)
    numbers = {key: data.draw(values, label=key) for key, values in SCALED[kind].items()}
    config = transformers.LlamaConfig(
        head_dim=head_dim, rope_parameters={"rope_type": kind, "rope_theta": theta, **numbers}
    )
    expected, expected_factor = ROPE_INIT_FUNCTIONS[kind](config)
    frequency, factor = inverse_frequencies(RopeConfig(type=kind, theta=theta, **numbers), head_dim)
    torch.testing.assert_close(frequency, expected, rtol=1e-5, atol=1e-9)
    assert factor == pytest.approx(expected_factor)


@given(theta=thetas, head_dim=st.sampled_from([2, 8, 64, 128]))
def test_plain_frequencies(theta, head_dim):
    frequency, factor = inverse_frequencies(RopeConfig(theta=theta), head_dim)
    expected = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    torch.testing.assert_close(
        frequency.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=0
    )
    assert factor == 1


def test_llama_3_1_far_into_its_context():
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = transformers.LlamaConfig(head_dim=128, max_position_embeddings=131_072, rope_parameters=rope)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    positions = [0, 1, 8191, 16_000]
    numbers = {k: v for k, v in rope.items() if k not in ("rope_type", "rope_theta")}
    cos, sin = rope_table(RopeConfig(type="llama3", theta=500_000.0, **numbers), 128, 16_001)
    expected_cos, expected_sin = rotary(torch.zeros(1), torch.tensor([positions]))
    # Angles near 16000 in float32 are 0.001 apart. Only the first half of our `sin` carries a minus sign.
    torch.testing.assert_close(cos[positions, 0], expected_cos[0], rtol=0, atol=4e-3)
    torch.testing.assert_close(sin[positions, 0, 64:], expected_sin[0, :, 64:], rtol=0, atol=4e-3)
    assert torch.equal(sin[..., :64], -sin[..., 64:])
