"""A Ray cluster of two nodes on this machine, in a process of its own, with token and own folder.

Other Ray processes of the machine are left alone. The head has room for a trial, the other node
too, and only the latter can be killed: a driver does not outlive the node that it is connected to.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

import psutil

ROOM = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


class LocalCluster:
    """Two nodes; their processes end with the context."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": self._folder.name,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            text=True,
        )
        self.address = self._answer()
        self.raylet = int(self._answer())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: object, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._folder.cleanup()

    def kill_node(self) -> None:
        """SIGKILL all processes of the second node at once, as a power cut does."""
        self._order("kill")

    def add_node(self) -> None:
        """Start another node in its place."""
        self.raylet = int(self._order("add"))

    def workers(self) -> list[psutil.Process]:
        """The processes that the second node has started."""
        return psutil.Process(self.raylet).children(recursive=True)

    def _order(self, what: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("cluster: "):
                return line.removeprefix("cluster: ").strip()
        raise RuntimeError("the cluster did not start")


def main() -> None:
    """Start the nodes, and obey until there are no more orders."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=ROOM)
    _say(cluster.address)
    node = cluster.add_node(**ROOM)
    _say(str(_raylet(node).pid))
    for order in sys.stdin:
        if order == "kill\n":
            raylet = _raylet(node)
            for process in (*raylet.children(recursive=True), raylet):
                process.kill()
            cluster.remove_node(node, allow_graceful=False)
            _say("done")
        else:
            node = cluster.add_node(**ROOM)
            _say(str(_raylet(node).pid))
    cluster.shutdown()


def _raylet(node: Any) -> psutil.Process:
    """The server that has started all other processes of a node."""
    (raylet,) = node.all_processes["raylet"]
    return psutil.Process(raylet.process.pid)


def _say(what: str) -> None:
    sys.stdout.write(f"cluster: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
