"""Population-based training (arXiv:1711.09846): the worst go on from the best, with other settings.

What follows a generation is a function of its results, of `search.seed` and of the member, so that
the same comes out in whichever order members end, and however often a study is interrupted.
Ray's class of this name decides by who reports first, with the global random numbers.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from study.core.hashing import digest
from study.core.records import JobResult
from study.pipeline.job import Job, Segment
from study.scheduling.journal import Entry
from study.scheduling.proposals.population_rule import Settings, draw, next_generation
from study.scheduling.proposals.tuned_grid import validation_error
from study.scheduling.protocols import Later, Member, Planned
from study.space.distributions import named_holes
from study.space.search_space import Space
from study.space.trial import Trial


@dataclass(frozen=True)
class Lineage:
    """A member with all that it has gone through.

    Args:
        settings: of the part that comes next.
        schedule: settings of each part so far.
        jobs: that have done these parts.
        errors: validation error after each epoch.
        parent: member of the last generation from which it goes on.
        error: that the weights have which would be kept; infinite if it diverged.
    """

    settings: Settings
    schedule: tuple[Settings, ...] = ()
    jobs: tuple[Job, ...] = ()
    errors: tuple[float, ...] = ()
    parent: int | None = None
    error: float = math.inf


class PopulationProposals:
    """Hands out each generation when the one before is over, and at last the tests.

    The best members are tested, and their schedule of settings is repeated with all other seeds
    beside the same from scratch.

    Args:
        space: whose sampler is population-based training.
        work: makes a piece of work of a trial.
        entries: the journal of earlier runs of the study; its trials keep their numbers.
    """

    def __init__(
        self, space: Space, work: Callable[[Trial], Job], entries: Mapping[int, Entry]
    ) -> None:
        search = space.settings.search
        assert search is not None
        assert search.population is not None
        self.space, self.work, self.search, self.rule = space, work, search, search.population
        self.holes = {hole.name: (kind, content) for hole, kind, content in named_holes(space.body)}
        self.bounds = self.rule.bounds(space.samples[0].finetune.epochs)
        self.numbers = {entry.planned.work.key: number for number, entry in entries.items()}
        first = len(self.bounds) * search.trials
        self.free = (number for number in itertools.count(first) if number not in entries)
        self.open: set[int] = set()
        self.ends: dict[int, tuple[JobResult, list[float]]] = {}
        self._plan = self._planned()

    def next(self) -> Planned | Later | None:
        """The next trial, `LATER` while a generation is under way."""
        return next(self._plan, None)

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Nothing to learn before a generation has ended."""

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """Learn how a trial ended."""
        self.open.discard(number)
        self.ends[number] = result, values

    def _planned(self) -> Iterator[Planned | Later]:
        members = [Lineage(settings) for settings in self._first()]
        for generation, bounds in enumerate(self.bounds):
            planned = [self._part(*each, generation, bounds) for each in enumerate(members)]
            yield from self._done(planned)
            ends = [self.ends[each.number][0].status for each in planned]
            # A failed one is repeated by a later run, before anybody is compared with it.
            if "failed" in ends or "completed" not in ends:
                return
            members = [
                self._grown(member, each) for member, each in zip(members, planned, strict=True)
            ]
            if generation + 1 < len(self.bounds):
                members = self._following(members, generation + 1)
        yield from self._tests(members)

    def _first(self) -> Iterator[Settings]:
        """Settings of the first generation: those that the space starts with, then any."""
        starts = itertools.chain(self.search.start_with, itertools.repeat({}))
        for member, given in zip(range(self.search.trials), starts, strict=False):
            rng = random.Random(digest([self.search.seed, 0, member]))
            yield draw(self.holes, rng) | given

    def _part(
        self, number: int, member: Lineage, generation: int, bounds: tuple[int, int]
    ) -> Planned:
        job = _continued(self.work(self.space.with_values(member.settings)), member.jobs, bounds)
        return Planned(
            generation * self.search.trials + number,
            job,
            member.settings,
            exempt=False,
            tuning=True,
            member=Member(generation, number, member.parent),
        )

    def _done(self, planned: Sequence[Planned]) -> Iterator[Planned | Later]:
        """Hand out trials, and wait until all have ended."""
        self.open |= {each.number for each in planned}
        yield from planned
        while self.open:
            yield Later.LATER

    def _grown(self, member: Lineage, planned: Planned) -> Lineage:
        """A member at the end of a generation."""
        result, values = self.ends[planned.number]
        errors = (*member.errors, *values)
        return replace(
            member,
            schedule=(*member.schedule, member.settings),
            jobs=(*member.jobs, planned.work),
            errors=errors,
            error=validation_error(planned.work.trial, result, errors),
        )

    def _following(self, members: list[Lineage], generation: int) -> list[Lineage]:
        """The members of the next generation, each with the past of its parent."""
        errors = [m.errors[-1] if math.isfinite(m.error) else math.inf for m in members]
        settings = [member.settings for member in members]
        rule, seed = self.rule, self.search.seed
        chosen = next_generation(errors, settings, self.holes, rule, seed, generation)
        return [replace(members[parent], settings=own, parent=parent) for parent, own in chosen]

    def _tests(self, members: list[Lineage]) -> Iterator[Planned | Later]:
        """Test the best, and repeat them; the parts of a chain wait for each other."""
        ranked = sorted(range(len(members)), key=lambda number: (members[number].error, number))
        repeated = self.search.repeat_best
        chains = [
            self._chain(number, members[number], trial)
            for number in ranked[: max(1, repeated)]
            if math.isfinite(members[number].error)
            for trial in self._repeated(members[number].jobs[-1].trial)
        ]
        for stage in itertools.zip_longest(*chains):
            planned = [each for each in stage if each is not None]
            yield from self._done(planned)
            if any(self.ends[each.number][0].status == "failed" for each in planned):
                return

    def _repeated(self, trial: Trial) -> list[Trial]:
        """A member with all seeds, and from scratch; itself alone if nothing is repeated."""
        if not self.search.repeat_best:
            return [trial]
        return self.space.with_baselines([trial], self.space.settings.seeds)

    def _chain(self, number: int, member: Lineage, trial: Trial) -> list[Planned]:
        """What repeats the schedule of a member with another seed or from scratch, and tests it."""
        own = {"seed": trial.seed, "pretrain": trial.pretrain, "transfer": trial.transfer}
        end, jobs = self.bounds[-1][1], list[Job]()
        settings = [*member.schedule, member.settings]
        for each, bounds in zip(settings, [*self.bounds, (end, end)], strict=True):
            part = self.space.with_values(each).model_copy(update=own)
            jobs.append(_continued(self.work(part), jobs, bounds))
        is_own = tuple(jobs[:-1]) == member.jobs
        return [
            Planned(
                self._number(job),
                job,
                each,
                exempt=not is_own,
                tuning=job.is_part,
                member=Member(generation, number, number),
            )
            for generation, (each, job) in enumerate(zip(settings, jobs, strict=True))
            if not (is_own and job.is_part)
        ]

    def _number(self, job: Job) -> int:
        if job.key not in self.numbers:
            self.numbers[job.key] = next(self.free)
        return self.numbers[job.key]


def _continued(job: Job, before: Sequence[Job], bounds: tuple[int, int]) -> Job:
    """The part of a finetuning that goes on from the last of the jobs before it."""
    return replace(job, segment=Segment(*bounds, before[-1].key if before else None))


def schedule_of_best(entries: Iterable[Entry]) -> list[Entry]:
    """The parts that the best member of a population has gone through; none before it is known."""
    known = {entry.planned.work.key: entry for entry in entries}
    tests = [each for each in known.values() if not each.planned.exempt and _is_test(each)]
    ranked = sorted(tests, key=lambda each: (_error(each), each.planned.number))
    found, job = list[Entry](), ranked[0].planned.work if ranked else None
    while job is not None and job.segment is not None and job.segment.parent in known:
        found.append(known[job.segment.parent])
        job = found[-1].planned.work
    return found[::-1]


def _is_test(entry: Entry) -> bool:
    completed = entry.result is not None and entry.result.status == "completed"
    return completed and not entry.planned.work.is_part


def _error(entry: Entry) -> float:
    assert entry.result is not None
    return validation_error(entry.planned.work.trial, entry.result, entry.values)
