"""Generation: ODE solvers and classifier-free guidance."""
