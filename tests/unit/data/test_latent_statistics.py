import pytest
import torch

from dcae15.artifacts import Statistics
from dcae15.data.latent_statistics import measure_latents, merge_measured, normalisation
from dcae15.errors import DataError


def latents(count: int = 60) -> torch.Tensor:
    values = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return values * torch.tensor([4.0, 1.0, 0.25])[:, None, None] + torch.tensor([100.0, 0.0, -3.0])[:, None, None]


@pytest.mark.parametrize("cuts", [[60], [1, 59], [20, 20, 20], [7, 1, 30, 22]])
def test_merging_is_exact_whatever_the_shards(cuts):
    values = latents()
    merged = merge_measured(measure_latents(part) for part in values.split(cuts))
    flat = values.double().transpose(0, 1).flatten(1)
    assert merged.count == flat.shape[1]
    assert merged.mean == pytest.approx(flat.mean(dim=1).tolist(), rel=1e-12)
    assert merged.std == pytest.approx(flat.std(dim=1, correction=0).tolist(), rel=1e-9)
    assert merged.rms == pytest.approx(flat.square().mean(dim=1).sqrt().tolist(), rel=1e-12)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("scaling", ["scalar", "per_channel"])
def test_normalised_latents_have_unit_power(scaling, shift):
    values = latents()
    offset, scale = normalisation(merge_measured([measure_latents(values)]), scaling, shift)
    seen = (values.double() - torch.tensor(offset)[:, None, None]) * torch.tensor(scale)[:, None, None]
    power = seen.square().mean(dim=(0, 2, 3))
    if scaling == "per_channel":
        assert power.tolist() == pytest.approx([1.0] * 3, rel=1e-5)
    else:
        assert power.mean().item() == pytest.approx(1.0, rel=1e-5)
        assert len(set(scale)) == 1
    if shift:
        assert seen.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    else:
        assert offset == (0.0, 0.0, 0.0)


def test_one_scalar_keeps_the_order_of_energies():
    _, scale = normalisation(Statistics(10, (0.0, 0.0), (4.0, 1.0)), "scalar", True)
    assert scale[0] * 4.0 > 3 * scale[1] * 1.0


def test_collapsed_latents_and_no_latents_are_errors():
    with pytest.raises(DataError, match="collapsed"):
        normalisation(Statistics(10, (1.0,), (0.0,)), "scalar", True)
    with pytest.raises(DataError, match="no training images"):
        merge_measured([])
