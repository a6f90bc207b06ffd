import pytest
import torch

from dcae15.sampling.solvers import integrate

MEAN, STD = 3.0, 0.5


def gaussian_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """E[data - noise | x_t] for data ~ N(MEAN, STD^2): the flow ends at MEAN + STD * noise."""
    slope = (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2)
    return MEAN + slope * (x - t * MEAN)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_error_falls_with_the_order_of_the_solver(solver, order):
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    exact = MEAN + STD * noise

    def error(steps: int) -> float:
        return (integrate(gaussian_velocity, noise, solver=solver, steps=steps) - exact).abs().max().item()

    coarse, fine = error(64), error(128)
    assert fine < 0.05
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize(("solver", "times"), [("euler", [0, 0.5]), ("heun", [0, 0.5, 0.5, 1])])
def test_times_of_the_calls(solver, times):
    seen = []

    def velocity(x, t):
        seen.append(t)
        return x

    integrate(velocity, torch.ones(1), solver=solver, steps=2)
    assert seen == times


def test_straight_path_needs_one_step():
    noise, data = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    result = integrate(lambda x, t: data - noise, noise, solver="euler", steps=1)
    torch.testing.assert_close(result, data)


def test_noise_is_left_alone():
    noise = torch.zeros(3)
    integrate(lambda x, t: torch.ones_like(x), noise, solver="heun", steps=3)
    assert noise.tolist() == [0, 0, 0]
