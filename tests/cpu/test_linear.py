import copy
import pickle
import platform
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import ops
from minillm.cpu import linear as module

CPU = torch.device("cpu")
x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="needs an x86 processor and oneDNN",
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
def test_every_way_is_the_product(rows, size_in, size_out, cores, bias, strided):
    x, weight = normal(rows, size_in), normal(size_in, size_out, seed=1)
    b = normal(size_out, seed=2) if bias else None
    given_x = torch.cat([x, x], dim=1)[:, :size_in] if strided else x
    before = given_x.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: cores)
        y = module.linear(given_x, weight, b)
        intels = module.linear_on_intel(given_x, weight, b)
        patch.setattr(module, "available_bytes", lambda: module.KEPT_FREE - 1)
        unpacked = module.linear(given_x, weight.clone(), b)
    right = (x.double() @ weight.double() + (0 if b is None else b.double())).float()
    for found in (y, intels, unpacked, ops.linear(x, weight, b)):
        torch.testing.assert_close(found, right)
    assert torch.equal(given_x, before)


@x86
@pytest.mark.parametrize(("cores", "parts"), [(8, [(4, 3, 5)]), (3, [(3, 4, 5)]), (5, []), (1, [])])
def test_the_weight_of_one_row_is_cut_into_one_part_per_core_and_not_copied(monkeypatch, cores, parts):
    """A count of cores that does not divide 12 gives fewer parts, and one part is PyTorch's own product."""
    weight, seen = normal(12, 5), []
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch, "bmm", lambda x, parts: seen.append(parts) or x @ parts)
    module.linear(normal(1, 12), weight, None)
    assert [tuple(p.shape) for p in seen] == parts
    assert all(p.data_ptr() == weight.data_ptr() for p in seen)


@x86
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("inference", [False, True])
def test_kept_forms_follow_their_weight_and_are_freed_with_it(monkeypatch, rows, inference):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with torch.inference_mode(inference):  # a weight made there does not count its changes
        x, weight, freed, kept = normal(rows, 12), normal(12, 5), [], len(module._forms)
    module.linear(x, weight, None)
    weight.detach().mul_(2)
    torch.testing.assert_close(module.linear(x, weight, None), x @ weight)
    weakref.finalize(weight, freed.append, True)
    assert len(module._forms) == kept + 1
    del weight
    assert freed == [True] and len(module._forms) == kept


@x86
def test_a_few_rows_read_a_packed_copy_which_a_copied_weight_does_not_share():
    x, weight = normal(3, 12), normal(12, 5)
    module.linear(x, weight, None)
    forms = module.forms_of(weight)
    assert forms.packed is not None and module.forms_of(weight) is forms
    other = copy.deepcopy(weight).neg_()
    torch.testing.assert_close(module.linear(x, other, None), -(x @ weight))
    assert module.forms_of(weight) is forms and pickle.loads(pickle.dumps(weight)).equal(weight)


@x86
def test_no_copy_is_made_that_leaves_too_little_memory(monkeypatch):
    free = module.KEPT_FREE + 12 * 5 * 4
    for available, made in ((free, True), (free - 1, False)):
        monkeypatch.setattr(module, "available_bytes", lambda available=available: available)
        assert (module.forms_of(normal(12, 5)).packed is not None) == made


@x86
def test_two_rows_are_computed_as_three(monkeypatch):
    seen, real = [], module.one_dnn
    monkeypatch.setattr(module, "one_dnn", lambda x, *args: seen.append(len(x)) or real(x, *args))
    for rows in (2, 3, 5):
        assert module.linear_on_intel(normal(rows, 12), normal(12, 5), None).shape == (rows, 5)
    assert seen == [3, 3, 5]


@x86
def test_one_dnn_compiles_for_few_numbers_of_rows(monkeypatch):
    """Prompts of 1 to 300 tokens need products for 2 to 64 rows and no others: it keeps 1,024 of all shapes."""
    asked = set()
    monkeypatch.setattr(module, "one_dnn", lambda x, weight, bias: asked.add(len(x)) or x @ normal(4, 3))
    weight = normal(4, 3)
    for rows in range(1, 301):
        assert module.linear(normal(rows, 4), weight, None).shape == (rows, 3)
    assert asked == {1, *range(3, module.ROWS_AT_ONCE + 1)}


@pytest.mark.parametrize(
    "weight",
    [torch.ones(4, 3, dtype=torch.bfloat16), torch.ones(3, 4).t(), torch.zeros(4, 3, device="meta")],
    ids=["bfloat16", "laid out for a GPU", "not on a CPU"],
)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_other_weights_use_pytorchs_own_product(monkeypatch, weight, rows, bias):
    if weight.device.type == "cpu":
        monkeypatch.setattr(module, "split_k", None)
        monkeypatch.setattr(module, "one_dnn", None)
    x, b = weight.new_ones(rows, 4), weight.new_ones(3) if bias else None
    torch.testing.assert_close(module.linear(x, weight, b), ops.linear(x, weight, b))


@x86
@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "vendor_id\t: AuthenticAMD\n", module.linear),
        ("x86_64", "vendor_id\t: GenuineIntel\n", module.linear_on_intel),
        ("AMD64", None, module.linear),  # no Linux: the processor's own name tells
        ("arm64", None, ops.linear),
    ],
)
def test_the_processor_decides(monkeypatch, tmp_path, machine, cpuinfo, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 25 Model 97, AuthenticAMD")
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("MINILLM_KERNELS", raising=False)
    if cpuinfo is not None:
        module.CPUINFO.write_text(cpuinfo)
    module.is_intel.cache_clear()
    try:
        assert ops.ops_for(CPU).linear is expected
        monkeypatch.setenv("MINILLM_KERNELS", "off")
        assert ops.ops_for(CPU).linear is ops.linear
    finally:
        module.is_intel.cache_clear()
