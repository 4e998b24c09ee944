"""Compiled programs on disk, and the private parts of torch that they stand on.

A new version of torch that moves or changes one of these parts fails here first.
"""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
import time
import zipfile
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
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

from study.core.atomic_io import write_hashed
from study.training import program_cache
from study.training.compiler import KERNELS_IN_ONE_FILE
from study.training.program_cache import UNUSED, load_or_compile, user_store

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


@pytest.mark.parametrize(
    "option", ["compile_threads", "post_grad_custom_post_pass", *KERNELS_IN_ONE_FILE]
)
def test_inductor_has_the_options_that_we_set(option: str) -> None:
    told = attrgetter(option)
    before = told(config)
    with config.patch({option: None}):
        assert told(config) is None
    assert told(config) == before


@pytest.mark.parametrize("built", ["kernel.o", "launcher.so"])
def test_only_programs_of_a_cpu_are_loaded_as_such(
    built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(program_cache.LAYOUT, '{"used": [], "guards": "True"}')
        archive.writestr(built, b"")
    found = []
    monkeypatch.setattr(CompiledArtifact, "load", lambda **_: found.append(config.cpp_wrapper))
    program_cache._unpack(packed.getvalue())
    assert found == [built == "kernel.o"]
    assert not config.cpp_wrapper


def test_inductor_asks_a_pass_for_a_call_and_a_key() -> None:
    assert CustomGraphPass.__abstractmethods__ == {"__call__", "uuid"}


def test_a_fresh_cache_is_an_empty_folder_of_its_own() -> None:
    with fresh_cache():
        inside = Path(cache_dir())
        assert not list(inside.rglob("*.so"))
    assert Path(cache_dir()) != inside


def test_programs_lie_in_a_private_folder_of_the_user() -> None:
    store = user_store()
    assert store is not None
    assert store.is_relative_to(os.environ["XDG_CACHE_HOME"])
    assert store.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens in place of compiling and loading: a list of both."""
    events: list[str] = []
    monkeypatch.setattr(program_cache, "_key", lambda *_: "key")
    monkeypatch.setattr(program_cache, "_pack", lambda _: b"code")
    for name, done in (("compile_program", "compiled"), ("_unpack", "loaded")):
        monkeypatch.setattr(program_cache, name, lambda *_, done=done: events.append(done))
    return events


NOTHING: Any = SimpleNamespace()


def test_a_program_is_compiled_once_for_all_results_folders_of_a_user(fake: list[str]) -> None:
    store = user_store()
    for _ in range(3):
        load_or_compile(NOTHING, NOTHING, store)
    assert fake == ["compiled", "loaded", "loaded"]


def test_without_a_private_folder_each_process_compiles(fake: list[str]) -> None:
    for _ in range(2):
        load_or_compile(NOTHING, NOTHING, None)
    assert fake == ["compiled", "compiled"]


def test_a_program_that_cannot_be_stored_is_used_all_the_same(
    fake: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program_cache, "write_hashed", refuse)
    load_or_compile(NOTHING, NOTHING, tmp_path)
    assert fake == ["compiled"]


def test_what_a_killed_compiler_left_is_removed(fake: list[str], tmp_path: Path) -> None:
    abandoned = tmp_path / "key.building" / "tmp" / "kernel.so"
    abandoned.parent.mkdir(parents=True)
    abandoned.touch()
    load_or_compile(NOTHING, NOTHING, tmp_path)
    assert fake == ["compiled"]
    assert not list(tmp_path.glob("*.building"))


def test_inductor_leaves_nothing_among_the_temporary_files(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "INDUCTOR" not in name}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "import study.core.paths, tempfile; study.core.paths.keep_inductor_private(); "
        "import torch_geometric; print(tempfile.gettempdir())"
    )
    shown = subprocess.check_output(
        [sys.executable, "-c", code], text=True, env=environment | {"TMPDIR": str(temporary)}
    )
    assert shown.strip() == str(temporary)
    assert not list(temporary.iterdir())


def test_programs_that_nobody_used_for_long_are_deleted(fake: list[str], tmp_path: Path) -> None:
    used = write_hashed(tmp_path, "key", ".zip", b"code")
    forgotten = write_hashed(tmp_path, "other", ".zip", b"code")
    recent = write_hashed(tmp_path, "recent", ".zip", b"code")
    for path in (used, forgotten):
        os.utime(path, (0, time.time() - UNUSED - 60))
    load_or_compile(NOTHING, NOTHING, tmp_path)
    assert fake == ["loaded"]
    assert used.exists()
    # A new program makes room for itself.
    used.unlink()
    load_or_compile(NOTHING, NOTHING, tmp_path)
    assert sorted(tmp_path.glob("*.zip")) == sorted([used, recent])
