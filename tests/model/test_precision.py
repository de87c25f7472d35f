"""Products in bfloat16 where the CPU has none: what a kernel of its own would give, gradients included."""

import pytest
import torch

from mcutune.model import precision
from mcutune.model.alignment import plain_product, product

HALF_A_STEP = 2.0**-8  # of a bfloat16 number, relative


@pytest.fixture(params=[False, True], ids=["by float32", "native"])
def native(request, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: request.param)


def operands(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in shapes]


PRODUCTS = {
    "mm": (precision.mm, torch.mm, operands((9, 7), (7, 5))),
    "bmm": (precision.bmm, torch.bmm, operands((2, 9, 7), (2, 7, 5))),
    "baddbmm": (precision.baddbmm, torch.baddbmm, operands((2, 1, 5), (2, 9, 7), (2, 7, 5))),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_its_gradients_are_those_of_the_rounded_operands(name, native):
    """Against float64: one rounding of the result, whichever way the CPU goes; a sum over rows is of rounded terms."""
    ours, theirs, given = PRODUCTS[name]
    exact = [x.detach().double().requires_grad_() for x in given]
    result, expected = ours(*given), theirs(*exact)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), expected, rtol=HALF_A_STEP, atol=1e-6)
    weight = torch.sin(torch.arange(result.numel())).view(result.shape).bfloat16()
    found = torch.autograd.grad(result, given, weight)
    for one, wanted in zip(found, torch.autograd.grad(expected, exact, weight.double()), strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.double(), wanted, rtol=HALF_A_STEP, atol=1e-6)


def test_float32_is_left_alone():
    a, b = torch.randn(2, 9, 7), torch.randn(2, 7, 5)
    assert torch.equal(precision.bmm(a, b), torch.bmm(a, b))
    assert torch.equal(precision.mm(a[0], b[0]), torch.mm(a[0], b[0]))
    assert torch.equal(precision.baddbmm(a[..., :5], a, b), torch.baddbmm(a[..., :5], a, b))


def test_products_of_the_frozen_form_go_the_same_way(monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
    seen = []
    for name in ("mm", "bmm"):
        kernel = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda a, b, kernel=kernel: seen.append(a.dtype) or kernel(a, b))
    a, b = torch.randn(2, 9, 7), torch.randn(2, 7, 5)
    for result in (product(a, b, low_precision=True)[0], plain_product(a[0], b[0], low_precision=True)):
        assert result.dtype == torch.float32 and torch.equal(result, result.bfloat16().float())
    assert seen == [torch.float32] * 2
