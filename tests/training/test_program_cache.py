"""Compiled programs on disk, and the private parts of torch that they stand on.

A new version of torch that moves or changes one of these parts fails here first.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from torch._inductor import config, standalone_compile
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._inductor.standalone_compile import CompiledArtifact
from torch._inductor.utils import fresh_cache
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

PARAMETERS = [
    (standalone_compile, ["gm", "example_inputs", "dynamic_shapes"]),
    (CompiledArtifact.save, ["path", "format"]),
    (CompiledArtifact.load, ["path", "format"]),
    (FakeTensorMode, ["shape_env"]),
    (FakeTensorMode.from_tensor, ["symbolic_context"]),
    (ShapeEnv, ["duck_shape"]),
    (ShapeEnv.produce_guards_expression, ["placeholders"]),
    (ShapeEnv.evaluate_guards_expression, ["code", "args"]),
    (make_fx, ["tracing_mode", "_allow_non_fake_inputs"]),
]


@pytest.mark.parametrize(("private", "names"), PARAMETERS)
def test_private_functions_of_torch_have_the_parameters_that_we_pass(
    private: Any, names: list[str]
) -> None:
    parameters = inspect.signature(private).parameters
    flexible = any(each.kind == each.VAR_KEYWORD for each in parameters.values())
    missing = [name for name in names if name not in parameters]
    assert not missing or flexible


@pytest.mark.parametrize("option", ["compile_threads", "post_grad_custom_post_pass"])
def test_inductor_has_the_options_that_we_set(option: str) -> None:
    before = getattr(config, option)
    with config.patch({option: None}):
        assert getattr(config, option) is None
    assert getattr(config, option) == before


def test_inductor_asks_a_pass_for_a_call_and_a_key() -> None:
    assert CustomGraphPass.__abstractmethods__ == {"__call__", "uuid"}


def test_a_fresh_cache_is_an_empty_folder_of_its_own() -> None:
    with fresh_cache():
        inside = Path(cache_dir())
        assert not list(inside.rglob("*.so"))
    assert Path(cache_dir()) != inside
