import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.batch import Batch, Chunk
from minillm.model import linear as module
from minillm.model.linear import CpuLinear, Linear, linear_for
from tests.model.zoo import sample

x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="a processor that CpuLinear is not for",
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@x86
@settings(max_examples=60)
@given(
    rows=st.sampled_from([1, 2, 3, 63, 64, 65, 128, 200]),
    size_in=st.sampled_from([1, 7, 12, 64]),
    size_out=st.sampled_from([1, 5, 32]),
    cores=st.sampled_from([1, 2, 3, 8]),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_both_ways_are_the_product(rows, size_in, size_out, cores, bias, strided):
    x, weight = normal(rows, size_in), normal(size_in, size_out, seed=1)
    b = normal(size_out, seed=2) if bias else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: cores)
        ours = CpuLinear(weight, b)
    assert ours.parts.shape[0] == next(n for n in range(cores, 0, -1) if cores % n == 0 and size_in % n == 0)
    assert ours.parts.data_ptr() == weight.data_ptr(), "a copy of the weight"
    given_x = torch.cat([x, x], dim=1)[:, :size_in] if strided else x
    before = given_x.clone()
    y = ours(given_x)
    right = (x.double() @ weight.double() + (0 if b is None else b.double())).float()
    torch.testing.assert_close(y, right)
    torch.testing.assert_close(Linear(weight, b)(x), right)
    assert torch.equal(given_x, before)


@x86
def test_one_dnn_compiles_for_few_numbers_of_rows(monkeypatch):
    """Prompts of 1 to 300 tokens need products for 2 to 64 rows and no others: it keeps 1,024 of all shapes."""
    asked = set()

    def several(self, x):
        asked.add(len(x))
        return x @ self.weight

    monkeypatch.setattr(CpuLinear, "_several", several)
    layer = CpuLinear(normal(4, 3))
    for rows in range(1, 301):
        assert layer(normal(rows, 4)).shape == (rows, 3)
    assert asked == set(range(1, module.ROWS_AT_ONCE + 1))


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(4, 3, dtype=torch.bfloat16), torch.zeros(3, 4).t(), torch.zeros(4, 3, device="meta")],
    ids=["bfloat16", "laid out for a GPU", "not on a CPU"],
)
def test_elsewhere_pytorchs_own_product_is_used(weight):
    assert type(linear_for(weight)) is Linear


@x86
@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "vendor_id\t: AuthenticAMD\n", CpuLinear),
        ("x86_64", "vendor_id\t: GenuineIntel\n", Linear),
        ("AMD64", None, CpuLinear),  # no Linux: the processor's own name tells
        ("arm64", None, Linear),
    ],
)
def test_the_processor_decides(monkeypatch, tmp_path, machine, cpuinfo, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 25 Model 97, AuthenticAMD")
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    if cpuinfo is not None:
        module.CPUINFO.write_text(cpuinfo)
    module._is_intel.cache_clear()
    try:
        assert type(linear_for(torch.zeros(4, 3))) is expected
    finally:
        module._is_intel.cache_clear()


def test_a_model_with_other_projections_is_another_model():
    model, cache = sample("biases").model, sample("biases").no_cache
    batch = Batch.of([Chunk([1, 2, 3], 0, [0])], 64)
    before = model.logits(model(batch, cache()))
    seen = []

    def noted(projection):
        seen.append(projection)
        return lambda x: projection(x)

    same = model.with_projections(noted)
    assert len(seen) == 4 * model.config.num_hidden_layers + 1
    torch.testing.assert_close(same.logits(same(batch, cache())), before)
    silent = model.with_projections(lambda projection: lambda x: projection(x) * 0)
    assert not silent.logits(silent(batch, cache())).any()
    torch.testing.assert_close(model.logits(model(batch, cache())), before)
