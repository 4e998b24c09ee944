"""The Ray of a study: it starts wherever a study does, belongs to it alone, and leaves nothing."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.core import paths
from study.core.errors import MachineError, UserError
from study.core.paths import PREFIX
from study.driver import private_head, ray_cluster, ray_env, ray_supervisor
from study.driver.private_head import PrivateHead
from study.driver.session import require_cluster
from study.space.settings import Resources

START = """
import os, sys
from study.driver import ray_cluster
from study.space.settings import Resources

slots = ray_cluster.connect(Resources(cpus=1, gpus=0), cpus=2)
import ray

@ray.remote
def where():
    return os.getpid()

assert ray.get(where.remote()) != os.getpid()
print("slots", slots, "head", ray_cluster._head.address, "in", ray_cluster._head._folder)
if sys.argv[1:] == ["wait"]:
    print("ready", flush=True)
    sys.stdin.read()
ray_cluster.disconnect()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for Ray's folders."""
    monkeypatch.setattr(private_head, "socket_dirs", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def head(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateHead]:
    """One that tries twice without a pause."""
    del place
    monkeypatch.setattr(private_head, "PAUSES", (0.0, 0.0))
    made = PrivateHead()
    yield made
    made.stop()


def command(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script stand for `ray start`."""
    monkeypatch.setattr(private_head, "_command", lambda *_: ["/bin/sh", "-c", script])


def started(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    kept = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG")
    inherited = {name: os.environ[name] for name in kept if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        env=inherited | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Home folders in which Ray must start, by what is odd about them."""
    new = tmp_path_factory.mktemp("new")
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / ".ray").mkdir()
    (foreign / ".ray" / "auth_token").write_text("f" * 64)
    read_only = tmp_path_factory.mktemp("read-only")
    read_only.chmod(0o500)
    long = tmp_path_factory.mktemp("long") / ("x" * 150)
    long.mkdir()
    return {
        "new": {"HOME": str(new)},
        "foreign token": {
            "HOME": str(foreign),
            "RAY_AUTH_TOKEN_PATH": str(foreign / ".ray" / "auth_token"),
            "RAY_ADDRESS": "127.0.0.1:1",
        },
        "read-only": {"HOME": str(read_only), "TMPDIR": str(long)},
    }


@pytest.mark.parametrize("home", ["new", "foreign token", "read-only"])
def test_ray_starts_in_any_home_and_leaves_nothing(
    home: str, homes: dict[str, dict[str, str]]
) -> None:
    process = started(homes[home])
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    *_, folder = out.split()
    assert not Path(folder).exists()
    assert [*Path(homes[home]["HOME"]).rglob("auth_token")] == (
        [Path(homes[home]["HOME"]) / ".ray" / "auth_token"] if home == "foreign token" else []
    )


def test_a_killed_driver_leaves_neither_processes_nor_a_folder(
    homes: dict[str, dict[str, str]],
) -> None:
    process = started(homes["new"], "wait")
    assert process.stdout is not None
    *_, folder = process.stdout.readline().split()
    assert process.stdout.readline() == "ready\n"
    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while Path(folder).exists() or named(folder):
        assert time.monotonic() < deadline, named(folder)
        time.sleep(0.1)


def named(folder: str) -> list[str]:
    """Command lines that name a folder."""
    shown = subprocess.run(["ps", "-axo", "args="], capture_output=True, text=True, check=True)
    return [line[:100] for line in shown.stdout.splitlines() if folder in line]


def test_a_token_that_comes_after_rays_import_is_refused() -> None:
    late = "import ray\nfrom study.driver import ray_env\nray_env.use_private_cluster()\n"
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", late], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Ray was imported before its authentication mode was chosen" in done.stderr


def test_the_users_own_token_is_for_clusters_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(ray_env.MODE, raising=False)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    ray_env.use_cluster()
    assert ray_env.MODE not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    ray_env.use_cluster()
    assert os.environ[ray_env.MODE] == "token"


def test_a_start_that_fails_is_tried_again(
    head: PrivateHead,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    flag = place / "tried"
    command(monkeypatch, f"test -e {flag} && exit 0; touch {flag}; echo 'timed out'; exit 1")
    with caplog.at_level(logging.WARNING):
        head.start(2)
    assert caplog.messages == ["Ray did not start (it was too slow); trying again"]
    head.stop()
    assert [*place.iterdir()] == [flag]


@pytest.mark.parametrize(
    ("said", "found", "way_out"),
    [
        ("OSError: AF_UNIX path length cannot exceed 107", "path of a socket", "TMPDIR"),
        ("[Errno 28] No space left on device", "disk is full", "free some space"),
        ("RAY_CHECK failed: Missing authorization header", "token is not accepted", "token"),
        (
            "raylet: Check failed: Timed out waiting for file /x/metrics_agent_port_1",
            "slow",
            "wait",
        ),
        ("RuntimeError: Version mismatch: The cluster was started with: Ray: 2.5", "ver", "same"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "memory", "fewer"),
        ("bind: Address already in use", "a port is taken", "ports"),
        ("[Errno 13] Permission denied: '/x'", "not writable", "TMPDIR"),
        ("something new\n\n", "something new", "same command"),
        ("", "Ray does not say why", "same command"),
    ],
)
def test_a_start_that_never_works_tells_the_cause_in_one_line(
    said: str,
    found: str,
    way_out: str,
    head: PrivateHead,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (place / "said").write_text(said)
    command(monkeypatch, f"cat {place / 'said'} >&2; exit 1")
    with pytest.raises(MachineError) as caught:
        head.start(2)
    told = str(caught.value)
    assert found in told
    assert way_out in told
    assert "\n" not in told
    assert [*place.iterdir()] == [place / "said"]


def test_processes_of_a_start_that_fails_are_ended(
    head: PrivateHead, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Ray's workers have, the second one has a process group of its own.
    script = f"sleep 600 & set -m; sleep 601 & echo $! >> {place}/pid; exit 1"
    command(monkeypatch, script)
    with pytest.raises(MachineError):
        head.start(2)
    for process in map(int, (place / "pid").read_text().split()):
        assert process not in ray_supervisor._states() or (ray_supervisor._states()[process] == "Z")


def test_a_start_takes_no_longer_than_its_limit(
    head: PrivateHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_head, "LIMIT", 0.3)
    command(monkeypatch, "sleep 600")
    began = time.monotonic()
    with pytest.raises(MachineError):
        head.start(2)
    assert time.monotonic() - began < 30


def test_a_signal_ends_a_start_at_once(head: PrivateHead, monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "sleep 600")
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            head.start(2)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("server", ["raylet", "gcs_server", ""])
def test_a_study_ends_with_the_servers_of_ray_unless_it_ends_them_itself(
    server: str, head: PrivateHead, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(private_head, "_abort", lambda name, _: ended.append(name))
    for name in ("raylet", "gcs_server"):
        (place / name).symlink_to(shutil.which("sleep") or "")
    pids = place / "pids"
    start = f"{place}/raylet 600 & echo raylet $! > {pids}; {place}/gcs_server 600 & "
    command(monkeypatch, start + f"echo gcs_server $! >> {pids}; sleep 0.2")
    head.start(2)
    started_now = dict(line.split() for line in pids.read_text().splitlines())
    if server:
        os.kill(int(started_now[server]), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not ended and time.monotonic() < deadline:
            time.sleep(0.05)
    head.stop()
    assert ended == ([ray_supervisor.SERVERS[server]] if server else [])


def test_folders_of_killed_studies_are_removed_and_no_others(place: Path) -> None:
    abandoned, foreign, fresh = (place / f"{PREFIX}{name}" for name in "abc")
    for folder in (abandoned, foreign, fresh):
        folder.mkdir()
    (abandoned / "lock").touch()
    used, lock = private_head._private_folder()
    # It says when the system knows it by this command line, which a fork does not have at once.
    left = subprocess.Popen(
        ["/bin/sh", "-c", "echo up; read line", f"{abandoned}/socket"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert left.stdout is not None
    assert left.stdout.readline() == "up\n"
    private_head.remove_abandoned()
    left.communicate(timeout=10)
    assert left.returncode == -signal.SIGKILL
    assert not abandoned.exists()
    # Another process may have made it just now, and lock it next.
    assert fresh.exists()
    assert used.exists()
    os.close(lock)
    private_head.remove_abandoned()
    assert not used.exists()


def test_a_folder_that_is_too_long_for_sockets_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 150)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert long not in paths.socket_dirs()
    monkeypatch.setattr(paths, "LONGEST_SOCKET", 10)
    with pytest.raises(MachineError, match="set TMPDIR to one"):
        private_head._private_folder()


def test_a_cluster_that_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**_options: object) -> None:
        os.write(2, b"E grpc: InvalidAuthToken\n" * 41)
        raise ConnectionError("no luck\nmore")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(MachineError, match=r"127\.0\.0\.1:1: cannot connect: the token") as caught:
        ray_cluster._join("127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_an_interrupt_before_the_thread_runs_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    joined: list[str] = []

    def late(thread: threading.Thread) -> None:
        threading.Timer(0.3, threading.Thread.start, [thread]).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "init", lambda **options: joined.append(options["address"]))
    monkeypatch.setattr(ray_cluster._Joining, "start", late)
    with pytest.raises(KeyboardInterrupt):
        ray_cluster._join("127.0.0.1:1")
    assert joined == ["127.0.0.1:1"]


def test_a_cluster_that_is_not_there_is_noticed_without_ray() -> None:
    with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:9: no response"):
        require_cluster("127.0.0.1:9")


@pytest.mark.parametrize(
    ("node", "on_gpus", "fitting"),
    [({"CPU": 9.0}, False, 2), ({"CPU": 9.0, "GPU": 3.0}, True, 1), ({"CPU": 3.0}, False, 0)],
)
def test_all_workers_of_a_trial_are_on_one_node(
    node: dict[str, float],
    on_gpus: bool,  # noqa: FBT001 - a parametrised value
    fitting: int,
) -> None:
    resources = Resources(workers=2, cpus=2, gpus=1)
    assert ray_cluster._fitting(resources, node, on_gpus=on_gpus) == fitting
