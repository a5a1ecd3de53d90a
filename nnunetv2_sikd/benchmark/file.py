"""Benchmark files: found, read and checked, with one clear line for whatever is wrong in them."""

from __future__ import annotations

import difflib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nnunetv2_sikd.benchmark.specification import (
    Arm,
    DerivedConfiguration,
    Part,
    Schedule,
    Source,
    Specification,
    TestSet,
)
from nnunetv2_sikd.errors import SIKDError

_MOST_BYTES = 2**20
_MOST_KEYS = 1000  # of one mapping, merged ones included: merges of merges multiply


def shipped_benchmarks() -> dict[str, Path]:
    """The benchmark files that come with this package, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "files").glob("*.yaml"))}


def as_file(benchmark: str) -> str:
    """A benchmark as another process, in another folder, can name it: a shipped name, or an absolute path."""
    return benchmark if benchmark in shipped_benchmarks() else str(Path(benchmark).resolve())


def load_specification(file: Path | str) -> Specification:
    """Read and check a benchmark file.

    Args:
        file: A YAML file, or the name of a shipped one.

    Raises:
        SIKDError: It is not there, cannot be read, or says something that is not understood.
    """
    path = shipped_benchmarks().get(str(file), Path(file))
    try:
        with path.open("rb") as stream:
            text = stream.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise SIKDError(f"{path}: is no benchmark file: larger than {_MOST_BYTES // 2**20} MiB")
        content = yaml.load(text.decode("utf-8"), _Loader)
    except OSError as error:
        shipped = ", ".join(shipped_benchmarks())
        raise SIKDError(f"{file}: no benchmark file ({error.strerror}); shipped ones: {shipped}") from error
    except RecursionError as error:
        raise SIKDError(f"{path}: no valid YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, KeyError) as error:  # the last of a tag's value
        raise SIKDError(f"{path}: no valid YAML: {' '.join(str(error).split())[:500]}") from error
    if not isinstance(content, dict):
        raise SIKDError(f"{path}: must hold keys and values, such as 'title: ...'; docs/benchmark.md shows one")
    try:
        return Specification.model_validate(content)
    except ValidationError as error:
        raise SIKDError(f"{path}: {' '.join(_first_problem(error).split())[:1000]}") from error


def select_part(
    specification: Specification,
    arms: list[str] | None = None,
    folds: list[int] | None = None,
    seeds: list[int] | None = None,
    baseline: str | None = None,
) -> Specification:
    """The same benchmark with some of its arms, folds or seeds; the baseline stays.

    Args:
        specification: The whole benchmark.
        arms: Only these; None for all.
        folds: Instead of its own; None for those.
        seeds: Instead of its own; None for those.
        baseline: Arm that the others are compared with, instead of its own.

    Raises:
        SIKDError: No such arm, or folds or seeds that cannot be.
    """
    chosen = list(specification.arms) if arms is None else arms
    unknown = [key for key in chosen if key not in specification.arms]
    if unknown:
        raise SIKDError(f"--arms {' '.join(unknown)}: not in this benchmark; it has {', '.join(specification.arms)}")
    base = specification.baseline if baseline is None else baseline
    changed = {
        **{name: getattr(specification, name) for name in Specification.model_fields},
        "baseline": base,
        "arms": {key: arm for key, arm in specification.arms.items() if key in chosen or key == base},
        **({} if folds is None else {"folds": folds}),
        **({} if seeds is None else {"seeds": seeds}),
    }
    try:
        return Specification.model_validate(changed)
    except ValidationError as error:
        raise SIKDError(f"--{_first_problem(error)}") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses floods of keys, and a key that comes twice (it forgets the first)."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: more than {_MOST_KEYS} keys")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {name!r} comes twice; rename or remove one")
            seen.append(name)
        return super().construct_mapping(node, deep)


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    # A misspelt key shows as a missing and an unknown one: the unknown one says what to mend.
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    if problem["loc"][-1:] in (("str",), ("int",)):  # pydantic names the kind it tried first; we take both
        return f"{where.rpartition('.')[0]}: must be a name or a number"
    if problem["type"] == "model_type":
        return f"{where}: must hold keys and values ({', '.join(_known_keys(problem['loc']))})"
    told = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {told}" if where else told


def _known_keys(where: tuple[int | str, ...]) -> list[str]:
    parts: dict[str, type[Part]] = {"source": Source, "tests": TestSet, "arms": Arm, "schedule": Schedule}
    part = Specification if not where else parts.get(str(where[0]), Specification)
    part = DerivedConfiguration if where[-1:] == ("derive",) else part
    return [field.alias or name for name, field in part.model_fields.items()]
