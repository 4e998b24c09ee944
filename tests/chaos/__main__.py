"""Kill real studies from outside, run them again, and check that nothing is lost or doubled.

`python -m tests.chaos` simulates, trains, records and reports with OpenMM, Ray and MLflow, beside
busy loops. It knows a study as its user does: the command, the process table, the files, MLflow's
client and the Parquet tables. Each study is hit several times and then left to finish; weights,
points and rows must equal those of an undisturbed one, and no process and no temporary file may be
left. `--disk` fills the disk instead.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from tests.chaos import disk, records
from tests.chaos.acts import Seen, perform
from tests.chaos.ledger import Ledger, Row, say
from tests.chaos.processes import BusyLoops, kill, living
from tests.chaos.schedule import SCENARIOS, Scenario, delays
from tests.chaos.study import Place, Study
from tests.faults.cluster import LocalCluster


def main() -> int:
    """Hit, check, print the ledger; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=40, help="rounds go on until so many hits")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--busy", type=int, default=6, help="busy loops beside the studies")
    usual = [name for name, scenario in SCENARIOS.items() if not scenario.cluster]
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=usual)
    parser.add_argument("--ledger", type=Path, default=Path("chaos.jsonl"))
    parser.add_argument(
        "--disk",
        nargs="*",
        choices=("out", "tmp", "database", "artifacts"),
        help="fill these disks, or all, instead of killing",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, BusyLoops(options.busy) as loops:
        schedule = Schedule(Path(folder), Ledger(options.ledger), loops)
        try:
            if options.disk is None:
                schedule.run(options.kills, options.seed, options.only)
            else:
                places = options.disk or ["out", "tmp", "database", "artifacts"]
                disk.run(Path(folder), schedule.ledger, schedule.usual, schedule.records, places)
        finally:
            schedule.close()
    schedule.ledger.show()
    return int(schedule.ledger.wrong > 0)


class Schedule:
    """Runs scenarios, and compares what they leave with an undisturbed grid.

    Args:
        folder: for everything.
        ledger: of what is done.
        loops: paused while nothing is hit.
    """

    def __init__(self, folder: Path, ledger: Ledger, loops: BusyLoops) -> None:
        self.folder, self.ledger, self.loops = folder, ledger, loops
        self.places: list[Place] = []
        self._pending: dict[Study, Row] = {}
        with loops.paused():
            self.usual = Study(Place(folder / "usual"), "grid")
            problems, seconds = self._finish(self.usual)
            if problems:
                raise SystemExit(f"an undisturbed study does not end well: {problems}")
            self.records = records.read(self.usual)
        say(f"undisturbed: {seconds:.0f} s, {len(self.records.rows)} rows")

    def run(self, kills: int, seed: int, chosen: list[str]) -> None:
        """Go through the scenarios until there were so many hits."""
        rng, count = random.Random(seed), 0
        while self.ledger.kills < kills:
            before = self.ledger.kills
            for name in chosen:
                count += 1
                self._play(f"{count} {name}", SCENARIOS[name], rng)
                if self.ledger.kills >= kills and count >= len(chosen):
                    return
            if self.ledger.kills == before:
                raise SystemExit("nothing was hit in a whole round: every study ended before")

    def _play(self, name: str, scenario: Scenario, rng: random.Random) -> None:
        data = self.usual.place.out / "data" if scenario.data else None
        place = Place(self.folder / name.replace(" ", "-"), data)
        self.places.append(place)
        with LocalCluster() if scenario.cluster else nullcontext() as cluster:
            studies = [Study(place, each, cluster=cluster) for each in scenario.profiles]
            self._hit_all(name, scenario, studies, rng)
            self._end(name, studies)

    def _hit_all(
        self, name: str, scenario: Scenario, studies: list[Study], rng: random.Random
    ) -> None:
        for turn, (act, delay) in enumerate(zip(scenario.acts, delays(scenario, rng), strict=True)):
            for study in studies:
                study.start()
            study = studies[turn % len(studies)]
            seen = perform(study, act, delay)
            self._note_next(study)
            if seen is not None:
                self._pending[study] = self._row(f"{name} {study.profile}", act.target, seen, study)

    def close(self) -> None:
        """End what is still running after an error of this schedule itself."""
        for place in self.places:
            kill(living(place.mark))

    def _row(self, name: str, target: str, seen: Seen, study: Study) -> Row:
        """What a command has said that ended by itself comes first."""
        said = f"{study.said()} -> " if seen.code is not None and seen.code >= 0 else ""
        return Row(name, seen.moment, target, seen.code, seen.seconds, said, seen.problems)

    def _note_next(self, study: Study) -> None:
        """Complete the row of the act before by what the next run has said."""
        row = self._pending.pop(study, None)
        if row is not None:
            row.said += study.said()
            self.ledger.add(row)

    def _end(self, name: str, studies: list[Study]) -> None:
        """Let them finish, and compare."""
        for study in studies:
            study.start()
        for study in studies:
            problems, seconds = self._finish(study)
            self._note_next(study)
            with self.loops.paused():
                if not problems:
                    found = records.read(study)
                    problems = records.differences(study.profile, found, self.records)
            row = Row(f"{name} {study.profile}", "", "finish", None, seconds, "", problems)
            row.said = "DIFFERS" if problems else "equal to the undisturbed"
            self.ledger.add(row)
        left = studies[0].place.left_over()
        if left:
            self.ledger.add(Row(name, "", "finish", None, None, "left over", left))
        elif not any(row.problems for row in self.ledger.rows if row.study.startswith(name)):
            shutil.rmtree(studies[0].place.folder)

    def _finish(self, study: Study) -> tuple[list[str], float]:
        problems, began = study.finish(), time.monotonic()
        return problems, began - study.began


if __name__ == "__main__":
    sys.exit(main())
