"""4-bit floats against the table of their numbers."""

import pytest
import torch

from minillm.quantization.mx import mxfp4, nvfp4, to_e2m1

LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def test_every_number_goes_to_the_nearest_of_sixteen():
    x = torch.linspace(-7, 7, 1401)
    numbers = torch.cat([LEVELS, -LEVELS])
    nearest = (x[:, None] - numbers).abs().amin(1)
    found = to_e2m1(x)
    assert torch.isin(found, numbers).all()
    assert torch.allclose((x - found).abs(), nearest)


def test_in_the_middle_the_even_mantissa_wins():
    middles = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert to_e2m1(middles).tolist() == [0, 1, 1, 2, 2, 4, 4]
    assert to_e2m1(-middles).tolist() == [-0.0, -1, -1, -2, -2, -4, -4]


@pytest.mark.parametrize(
    ("fake", "size", "scales"), [(mxfp4, 32, [2.0**-20, 0.25, 64.0]), (nvfp4, 16, [0.0625, 1.125, 448.0])]
)
def test_numbers_of_the_format_come_back(fake, size, scales):
    levels = LEVELS[torch.randint(0, 8, (4, 3, size), generator=torch.Generator().manual_seed(0))]
    levels[..., 0] = -6
    weight = (levels * torch.tensor(scales)[:, None]).flatten(1)
    assert torch.equal(fake(weight), weight)


def test_the_scale_of_mxfp4_is_the_power_of_two_that_suits_the_largest():
    for largest, expected in (
        (6.0, 6.0),
        (6.9, 6.0),
        (7.0, 8.0),
        (7.9, 8.0),
        (8.0, 8.0),
        (12.0, 12.0),
        (3.5, 4.0),
    ):
        block = torch.zeros(1, 32)
        block[0, 5] = largest
        assert mxfp4(block)[0, 5] == expected
        assert mxfp4(block * 2.0**-20)[0, 5] == expected * 2.0**-20


def test_each_block_of_nvfp4_has_a_scale_of_eight_bits():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    whole = weight.abs().max() / (6 * 448)
    scale = (weight.unflatten(1, (4, 16)).abs().amax(-1) / 6 / whole).to(torch.float8_e4m3fn).float() * whole
    steps = nvfp4(weight).unflatten(1, (4, 16)) / scale[..., None]
    assert torch.allclose(to_e2m1(steps), steps, atol=1e-5)


@pytest.mark.parametrize("fake", [mxfp4, nvfp4])
@pytest.mark.parametrize("value", [0.0, 1e-40, 1e-30, 3.0, -2.0, 1e37])
def test_constant_blocks_stay_near(fake, value):
    weight = torch.full((2, 32), value)
    assert torch.allclose(fake(weight), weight, rtol=0.2, atol=1e-37)


@pytest.mark.parametrize(("fake", "size"), [(mxfp4, 32), (nvfp4, 16)])
def test_what_does_not_fit_is_named(fake, size):
    with pytest.raises(ValueError, match=rf"\[2, 40\]: blocks of {size} numbers do not fill its rows"):
        fake(torch.ones(2, 40))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            fake(torch.full((2, 32), bad))
