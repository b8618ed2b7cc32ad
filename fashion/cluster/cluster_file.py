"""Mistakes in a cluster file (`cluster.yaml`) that Ray's launcher does not notice; Ray's own schema checks the rest.

They are misspelt keys of the provider and of machines, a head that would run trials, ports open to strangers, and
resources that no machine offers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fashion.cluster.ec2_keys import COMMANDS, NODE_KEYS, NODE_NEEDS, PROVIDER_KEYS
from fashion.cluster.growth import RAYS_MAXIMUM, Growth, NodeType
from fashion.errors import Problem, nearest
from fashion.spec.settings import ResourcesConfig
from fashion.spec.yaml_lines import Document
from fashion.spec.yaml_lines import Path as KeyPath

PLACEHOLDER = "CHANGE-ME"
TOKEN = "~/.ray/auth_token"
ANY = 1e9  # the amount of a resource that a node type leaves open: Ray looks it up
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_cluster(path: str | Path, wanted: Sequence[tuple[str, ResourcesConfig]] = ()) -> list[Problem]:
    """Every mistake in the cluster file, and a problem for each of the specs in `wanted` that the cluster can't run.

    `wanted` holds (file name, resources) of each spec. Paths in `file_mounts` are relative to the cluster file's
    folder, in which `ray up` must then be run.
    """
    problems: list[Problem] = []
    document = _read(Path(path), problems)
    if not isinstance(document.value, dict):
        return problems or [Problem(str(path), "a cluster file is a mapping of keys to values")]
    aws = (_provider, _nodes) if _mapping(document.value.get("provider")).get("type") == "aws" else ()
    for rule in (_placeholders, _workers, _head, _starts, *aws):
        problems += rule(document)
    problems += _mounts(document, Path(path).parent)
    for name, resources in wanted:
        problems += _demand(document, name, resources)
    return sorted(problems, key=_line)


def _placeholders(document: Document) -> Iterator[Problem]:
    found = {text: path for path, text in reversed(list(_texts(document.value))) if PLACEHOLDER in text}
    for text, path in found.items():  # each at its first position only: aliases repeat it
        word = next(word for word in text.split() if PLACEHOLDER in word)
        yield Problem(document.place(path), "must be replaced by your own value, as docs/cluster.md says", word)


def _provider(document: Document) -> Iterator[Problem]:
    if "cluster_name" not in document.value:
        rule = "cluster_name must be given: Ray's own, 'default', may be somebody else's cluster"
        yield Problem(document.source, rule)
    provider = document.value["provider"]
    region = provider.get("region")
    if region is None:
        yield Problem(document.place(("provider",)), "region must be given")
    for zone in str(provider.get("availability_zone", "")).replace(",", " ").split() if region else ():
        if not zone.startswith(str(region)):
            yield Problem(document.place(("provider", "availability_zone")), f"must be zones of {region}", zone)
    for key in provider:
        if key not in PROVIDER_KEYS:
            yield _unknown(document, ("provider", key), PROVIDER_KEYS)
    for name, reason in COMMANDS.items():
        if name not in document.value:
            yield Problem(document.source, f"{name} must be given, even if only as []: {reason}")


def _nodes(document: Document) -> Iterator[Problem]:
    own_key = "ssh_private_key" in _mapping(document.value.get("auth"))
    written: dict[tuple[int, str], Problem] = {}  # each once: aliases repeat lines
    for name, node in _types(document).items():
        at = ("available_node_types", name, "node_config")
        config = _mapping(node.get("node_config"))
        for path, known in _unknown_keys(config, "node_config", at):
            if path in document.lines:  # merged keys have no line of their own
                written.setdefault((document.lines[path], str(path[-1])), _unknown(document, path, known))
        if "LaunchTemplate" in config:
            continue  # the template may hold all of what follows
        for key, reason in NODE_NEEDS.items():
            if key not in config and not (key == "SecurityGroupIds" and "NetworkInterfaces" in config):
                yield Problem(document.place(at), f"{key} must be given: {reason}")
        if own_key and "KeyName" not in config and "UserData" not in config:
            yield Problem(
                document.place(at), "KeyName must be given: the key pair to which auth.ssh_private_key belongs"
            )
    yield from written.values()


def _unknown_keys(value: Any, kind: str, path: KeyPath) -> Iterator[tuple[KeyPath, tuple[str, ...]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_keys(item, kind, (*path, index))
    for key, inner in _mapping(value).items():
        if key not in NODE_KEYS[kind]:
            yield (*path, str(key)), NODE_KEYS[kind]
        elif key in NODE_KEYS:
            yield from _unknown_keys(inner, key, (*path, key))


def _workers(document: Document) -> Iterator[Problem]:
    most = document.value.get("max_workers", RAYS_MAXIMUM)
    for name, node in _types(document).items():
        at = ("available_node_types", name, "max_workers")
        own, least = node.get("max_workers", most), node.get("min_workers", 0)
        if not all(isinstance(number, int) for number in (most, own, least)):
            continue  # Ray's schema reports that
        if own > most:
            yield Problem(document.place(at), f"must be at most the cluster's max_workers, {most}", str(own))
        if least > own and name != document.value.get("head_node_type"):
            yield Problem(document.place(at), f"must be at least its min_workers, {least}", str(own))


def _head(document: Document) -> Iterator[Problem]:
    name = str(document.value.get("head_node_type"))
    head = _types(document).get(name)
    if head is None:
        return  # Ray's own check reports that
    at: KeyPath = ("available_node_types", name)
    resources = _mapping(head.get("resources"))
    starts = [(path, text) for path, text in _starting(document) if path[0] == "head_start_ray_commands"]
    for kind, option in (("CPU", "--num-cpus"), ("GPU", "--num-gpus")):
        if resources.get(kind) != 0:
            rule = f"the head must offer no {kind}, or trials will run on it"
            got = str(resources.get(kind, "all that the machine has"))
            yield Problem(document.place((*at, "resources")), rule, got, f"Set {kind}: 0")
        for path, text in starts:
            if not re.search(rf"{option}[= ]0(\s|$)", text):
                yield Problem(document.place(path), f"the head must start with {option}=0, or trials will run on it")
    if head.get("max_workers", 0) != 0:
        rule = "must be 0: no worker may be of the head's type"
        yield Problem(document.place((*at, "max_workers")), rule, str(head["max_workers"]))


def _starts(document: Document) -> Iterator[Problem]:
    for path, text in _starting(document):
        if not re.search(r"\bRAY_AUTH_MODE=token\b", text):
            rule = (
                "every `ray start` needs RAY_AUTH_MODE=token: without it anyone who reaches the port may run anything"
            )
            yield Problem(document.place(path), rule, fix="Put `export RAY_AUTH_MODE=token;` before it")
        for host in re.findall(r"--dashboard-host[= ](\S+)", text):
            if host not in LOOPBACK:
                rule = "the dashboard must listen on loopback only"
                yield Problem(document.place(path), rule, host, "Set --dashboard-host=127.0.0.1")


def _mounts(document: Document, folder: Path) -> Iterator[Problem]:
    mounts = _mapping(document.value.get("file_mounts"))
    for remote, local in mounts.items():
        if isinstance(local, str) and not (folder / Path(local).expanduser()).exists():
            place = document.place(("file_mounts", remote))
            fix = "docs/cluster.md says how to make it" if remote == TOKEN else ""
            yield Problem(place, "there is no such file or folder", local, fix)
    if TOKEN not in mounts:
        rule = f"{TOKEN} must be among the file_mounts: Ray does not hand the token out"
        yield Problem(document.place(("file_mounts",)), rule)


def _demand(document: Document, spec: str, resources: ResourcesConfig) -> Iterator[Problem]:
    """A problem if the largest cluster that the file allows can't run a single trial of these resources."""
    types = _types(document)
    types.pop(str(document.value.get("head_node_type")), None)
    offers = {name: _mapping(node.get("resources")) for name, node in types.items()}
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(_number(offer.get("GPU"), 0) >= 1 for offer in offers.values()) else 0.0
    needs = {"CPU": float(resources.cpus_per_worker), "GPU": float(gpus)}
    most = int(_number(document.value.get("max_workers"), RAYS_MAXIMUM))
    kinds = tuple(
        NodeType(
            {kind: _number(offers[name].get(kind), ANY) for kind in needs}, int(_number(node.get("max_workers"), most))
        )
        for name, node in types.items()
    )
    room = Growth(kinds, most).workers(needs)
    if room < resources.workers:
        asked = f"{resources.workers} worker(s) of {needs['CPU']:g} CPU and {needs['GPU']:g} GPU"
        rule = f"{spec}: no node type offers what a trial needs, {asked}"
        yield Problem(document.place(("available_node_types",)), rule, f"room for {room}")


def _read(path: Path, problems: list[Problem]) -> Document:
    """The file's values as Ray reads them, in YAML 1.1, with their lines.

    Duplicate keys, of which Ray silently takes the last, and whatever makes the file unreadable go into `problems`.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    document, yaml = Document(str(path), None), YAML(typ="safe", pure=True)
    yaml.version, yaml.allow_duplicate_keys = (1, 1), True

    def walk(node: Any, at: KeyPath) -> None:
        document.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*at, index))
        elif isinstance(node, MappingNode):
            seen = set()
            for key, value in node.value:
                inner = (*at, str(key.value))
                if key.value in seen:
                    rule = f"this key is there twice, first on line {document.lines[inner]}"
                    problems.append(Problem(f"{path}:{key.start_mark.line + 1} {key.value}", rule, fix="Remove one"))
                seen.add(key.value)
                document.lines.setdefault(inner, key.start_mark.line + 1)
                walk(value, inner)

    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.load(text)
        if value is not None:
            walk(yaml.compose(text), ())
        document.value = value
    except OSError as error:
        problems.append(Problem(str(path), f"the file can't be read: {error.strerror}"))
    except MarkedYAMLError as error:
        place = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        problems.append(Problem(place, f"not valid YAML: {error.problem or error.context}"))
    except (YAMLError, ValueError, TypeError, RecursionError) as error:  # not UTF-8, a list as a key, endless nesting
        problems.append(Problem(str(path), "not valid YAML", type(error).__name__))
    return document


def _types(document: Document) -> dict[str, dict[str, Any]]:
    types = _mapping(document.value.get("available_node_types"))
    return {str(name): node for name, node in types.items() if isinstance(node, dict)}


def _starting(document: Document) -> Iterator[tuple[KeyPath, str]]:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        yield from (found for found in _texts(document.value.get(key), (key,)) if "ray start" in found[1])


def _texts(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every text in `value` with the path of its key."""
    if isinstance(value, str):
        yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _texts(inner, (*path, key))


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, int | float) else otherwise


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _unknown(document: Document, path: KeyPath, known: tuple[str, ...]) -> Problem:
    return Problem(document.place(path), "there is no such key", str(path[-1]), nearest(str(path[-1]), known))


def _line(problem: Problem) -> int:
    return int((re.findall(r":(\d+)(?: |$)", problem.place) or [0])[0])
