import functools

import pytest
from torch import nn

from tests.unit.training import small


@pytest.fixture(scope="session")
def image_set(tmp_path_factory) -> str:
    return small.write_images(str(tmp_path_factory.mktemp("images")), 16)


@pytest.fixture(scope="session")
def larger_images(tmp_path_factory) -> str:
    return small.write_images(str(tmp_path_factory.mktemp("images")), 32)


@pytest.fixture(scope="session")
def latent_set(tmp_path_factory) -> str:
    return small.write_latents(str(tmp_path_factory.mktemp("latents")))


@pytest.fixture(scope="session")
def lpips_files(tmp_path_factory) -> tuple[str, str]:
    return small.write_lpips(tmp_path_factory.mktemp("lpips"))


@pytest.fixture
def graphs_only(monkeypatch):
    """torch.compile traces and differentiates as always, but generates no code: that takes a minute, and is torch's own."""
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
