"""Classes of Optuna by their plain names, with options as their constructors take them.

`cmaes` is `CmaEsSampler`, `successive_halving` is `SuccessiveHalvingPruner`. What a class takes is
read from its signature, so that classes of later versions need nothing here. Optuna takes long to
import, and only a space that names more than `tpe` or `random` asks for it.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from study.core.errors import one_line


@dataclass(frozen=True)
class Family:
    """Classes of one kind.

    Args:
        module: of Optuna.
        suffix: of their names.
        packages: what some need beyond this program, as pip calls it, by plain name.
        elsewhere: module and name of classes that are not in `module`.
        ours: what a space may name beside them, which is no class of Optuna's.
    """

    module: str
    suffix: str
    packages: Mapping[str, tuple[str, ...]]
    elsewhere: Mapping[str, tuple[str, str]]
    ours: tuple[str, ...]


SAMPLERS = Family(
    "optuna.samplers",
    "Sampler",
    {"cmaes": ("cmaes",), "botorch": ("optuna-integration", "botorch")},
    {"botorch": ("optuna_integration", "BoTorchSampler")},
    ("pbt",),
)
PRUNERS = Family("optuna.pruners", "Pruner", {}, {}, ("asha",))

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "None": ((type(None),), "null"),
    "dict": ((dict,), "a block of keys"),
    "Mapping": ((dict,), "a block of keys"),
    "BaseSampler": ((dict,), "a block with a `name`"),
    "BasePruner": ((dict,), "a block with a `name`"),
}
"""What may stand in a space for a type of Python, and how it is called there."""
HUB = "/"
"""Only names of packages of OptunaHub have one."""
SHOWN = {"partialfixed": "partial_fixed"}
"""Names as the documents write them, by plain name."""
NESTED = {"BaseSampler": SAMPLERS, "BasePruner": PRUNERS}


def plain(name: str) -> str:
    """A name as it is compared: `CMA-ES`, `cma_es` and `cmaes` are one."""
    return re.sub(r"[-_ ]", "", name).lower()


def names(family: Family) -> dict[str, str]:
    """Names of all classes, by plain name."""
    listed: list[str] = import_module(family.module).__all__
    kinds = [name for name in listed if name.endswith(family.suffix) and "Base" not in name]
    return {plain(name.removesuffix(family.suffix)): name for name in kinds}


def class_of(name: str, family: Family, ref: str = "") -> Any:
    """The class, for a name that has passed `problems`.

    Args:
        name: plain name of the class, or a package of OptunaHub such as `samplers/auto_sampler`.
        family: of the class.
        ref: commit of OptunaHub's registry.
    """
    if HUB in name:
        hub = import_module("optunahub").load_module(package=name, ref=ref)
        base = getattr(import_module(family.module), f"Base{family.suffix}")
        kinds = (kind for kind in vars(hub).values() if isinstance(kind, type))
        own = (kind for kind in kinds if kind.__module__.startswith(hub.__name__))
        return next(kind for kind in own if issubclass(kind, base))
    module, kind = family.elsewhere.get(plain(name), (family.module, ""))
    return getattr(import_module(module), kind or names(family)[plain(name)])


def options_of(kind: Any) -> dict[str, inspect.Parameter]:
    """What the class takes and a space may say, by name."""
    parameters = inspect.signature(kind).parameters.values()
    return {each.name: each for each in parameters if each.name != "seed"}


def make(
    name: str,
    options: Mapping[str, Any],
    family: Family,
    seed: int = 0,
    inner_seed: int | None = None,
) -> Any:
    """The object that a checked block describes.

    Args:
        name: plain name of the class.
        options: of its constructor; blocks stand for other samplers or pruners.
        family: of the class.
        seed: of all that is random in it, if anything is.
        inner_seed: of the samplers in it; the same when left out.
    """
    kind, options = _opened(name, options, family)
    taken = inspect.signature(kind).parameters
    inner_seed = seed if inner_seed is None else inner_seed
    nested = {
        key: make(value["name"], _without_name(value), inner, inner_seed)
        for key, value in options.items()
        if isinstance(value, dict) and (inner := _family_of(taken[key]))
    }
    own = {"seed": seed, "warn_independent_sampling": False}
    usual = {key: value for key, value in own.items() if key in taken}
    with warnings.catch_warnings():
        # That an option is experimental or will go is the user's own affair.
        warnings.simplefilter("ignore")
        return kind(**(usual | dict(options) | nested))


def problems(
    name: str, options: Mapping[str, Any], family: Family
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a block, as the keys below it and the rule.

    Args:
        name: as the space has it.
        options: all other keys.
        family: of the class.
    """
    known = [*names(family), *family.elsewhere]
    if HUB in name:
        yield from _problems_of_hub(name, options, family)
        return
    if plain(name) not in known:
        near = [SHOWN.get(each, each) for each in get_close_matches(plain(name), known, n=1)]
        hint = f"; did you mean `{near[0]}`?" if near else ""
        offered = ", ".join(SHOWN.get(each, each) for each in [*family.ours, *known])
        yield ("name",), f"must be one of {offered}, but got {name!r}{hint}"
        return
    if missing := [each for each in family.packages.get(plain(name), ()) if not _is_there(each)]:
        yield ("name",), f"`{name}` needs a package; run `pip install {' '.join(missing)}`"
        return
    yield from _problems_of_class(name, options, family)


def _problems_of_hub(
    name: str, options: Mapping[str, Any], family: Family
) -> Iterator[tuple[tuple[str, ...], str]]:
    if not _is_there("optunahub"):
        yield ("name",), f"`{name}` is a package of OptunaHub; run `pip install optunahub`"
    elif not re.fullmatch(r"[0-9a-f]{40}", str(options.get("ref", ""))):
        rule = (
            "must be the commit of OptunaHub's registry, 40 digits, so that every run has the same"
        )
        yield ("ref",), f"{rule} `{name}`"
    else:
        yield from _problems_of_class(name, options, family)


def _opened(name: str, options: Mapping[str, Any], family: Family) -> tuple[Any, Mapping[str, Any]]:
    """The class, and its options without the commit of a package of OptunaHub."""
    if HUB not in name:
        return class_of(name, family), options
    own = {key: value for key, value in options.items() if key != "ref"}
    return class_of(name, family, options["ref"]), own


def _problems_of_class(
    name: str, options: Mapping[str, Any], family: Family
) -> Iterator[tuple[tuple[str, ...], str]]:
    try:
        kind, own = _opened(name, options, family)
    except Exception as problem:  # A package of OptunaHub is downloaded, and runs.
        yield ("name",), f"`{name}` cannot be loaded: {one_line(problem)}"
        return
    wrong = list(_problems_of_options(name, own, options_of(kind)))
    yield from wrong
    if not wrong:
        try:
            make(name, options, family)
        except Exception as problem:  # Each class has its own way to refuse a value.
            yield (), f"{kind.__name__} refuses these options: {one_line(problem)}"


def _problems_of_options(
    name: str, options: Mapping[str, Any], taken: Mapping[str, inspect.Parameter]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in options.items():
        if key == "seed":
            yield (key,), "is set by `search.seed`; leave it out"
        elif key not in taken:
            near = get_close_matches(key, taken, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            yield (key,), f"unknown option; {hint}{name} takes {_listed(taken)}"
        else:
            for place, rule in _problems_of_value(taken[key], value):
                yield (key, *place), rule
    for key, parameter in taken.items():
        if parameter.default is parameter.empty and key not in options:
            yield (), f"`{name}` needs the option `{key}`; it takes {_listed(taken)}"


def _problems_of_value(
    parameter: inspect.Parameter, value: Any
) -> Iterator[tuple[tuple[str, ...], str]]:
    words = _kinds(parameter)
    if not words - {"None"}:
        yield (), "takes an object of Python; a sampler of your own can give it (study.plugins)"
    elif not any(_is(value, word) for word in words):
        told = " or ".join(dict.fromkeys(KINDS[word][1] for word in sorted(words)))
        yield (), f"must be {told}, but got {'a block of keys' if _is(value, 'dict') else value!r}"
    elif isinstance(value, dict) and (inner := _family_of(parameter)):
        if not isinstance(value.get("name"), str):
            yield (), "needs a `name`"
        else:
            yield from problems(value["name"], _without_name(value), inner)


def _kinds(parameter: inspect.Parameter) -> set[str]:
    """Words of `KINDS` in the type that a parameter is declared with."""
    declared = inspect.formatannotation(parameter.annotation)
    outer = re.sub(r"\[.*\]", "", declared)  # What a dictionary holds is its own affair.
    return set(re.findall(r"\w+", outer)) & KINDS.keys()


def _family_of(parameter: inspect.Parameter) -> Family | None:
    return next((NESTED[word] for word in _kinds(parameter) if word in NESTED), None)


def _is(value: Any, word: str) -> bool:
    kinds, _ = KINDS[word]
    return isinstance(value, kinds) and (word == "bool" or not isinstance(value, bool))


def _listed(taken: Mapping[str, inspect.Parameter]) -> str:
    """What may be said in a space, for a message."""
    return ", ".join(key for key, each in taken.items() if _kinds(each) - {"None"}) or "no options"


def _without_name(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "name"}


def _is_there(package: str) -> bool:
    return find_spec(package.replace("-", "_")) is not None
