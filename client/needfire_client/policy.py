"""Which policy holds for a path, and how far the rules lead into directories.

The rules form a tree of path components. A scan walks the file system and this tree side by side:
a ``Place`` is what the rules say of one directory, and gives the ``Place`` of each directory in
it. So a wildcard is decided name by name as names are met, a file that appears between two checks
is covered at once, and a path needs no list of expansions to be decided.

    The most specific path wins, that is, the one with the most components; between a literal and
    a wildcard the literal, and otherwise the rule that stands first.
    ``file=/x`` decides over the object /x even where ``dir=/x`` decides over what is in it.
    A ``dir=`` rule decides over everything below it to its depth, and over nothing beneath that
    depth: a shallow rule inside of a deep one ends the deep one there. That is what makes
    ``dir=-1/x`` under IgnoreAll an exclusion.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from needfire_client.glob import compile_component, literal_component
from needfire_protocol.plain_classes import dataclass, field
from needfire_protocol.rc.policies import Check, PathRule, Policy, RuleKind
from needfire_protocol.rc.values import DEPTH_MAX
from needfire_protocol.severity import Severity

__all__ = ["EVERYTHING", "Decision", "Place", "RuleSettings", "Ruleset", "Selection"]


class RuleSettings(Protocol):
    """What the settings of an agent say of rules (``AgentSettings`` has it)."""

    @property
    def rules(self) -> tuple[PathRule, ...]: ...
    @property
    def masks(self) -> Mapping[Policy, Check]: ...
    @property
    def policy_severities(self) -> Mapping[Policy, Severity]: ...
    @property
    def recursion_level(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Which groups of rules a pass is for. What other rules decide about, it leaves alone."""

    groups: frozenset[str] | None = None
    """None: all."""
    quick: frozenset[str] = frozenset()
    """Of these it reads a file only where another attribute has changed."""

    def has(self, group: str) -> bool:
        """True where the rules of the group are looked at."""
        return self.groups is None or group in self.groups


EVERYTHING: Final = Selection()
"""All rules, and all contents."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What the rules say of one object. Compared by identity: one rule makes one decision."""

    policy: Policy
    mask: Check
    severity: Severity
    """Of its modification, and of its appearance."""
    rule: PathRule
    levels: int
    """Levels of directories below the rule's own that it covers; -1: not even its contents."""
    order: tuple[bool, int]
    """Sorts rules of equal depth: literal before wildcard, then as they stand in the file."""
    hashes: bool
    """The mask compares contents, so regular files are read."""
    grows: bool
    """The mask lets files grow."""
    watches_reading: bool
    """The mask compares access times."""
    is_quick: bool = False
    """Files are read only where another attribute has changed."""
    is_selected: bool = True
    """False: of a rule that is not looked at now; it only ends those that are."""


@dataclass(slots=True, eq=False)
class _Node:
    """One component of the rules' paths."""

    literals: dict[bytes, "_Node"] = field(default_factory=dict)
    patterns: dict[bytes, tuple[re.Pattern[bytes], "_Node"]] = field(default_factory=dict)
    of_file: Decision | None = None
    of_dir: Decision | None = None

    def child(self, component: bytes, is_glob: bool) -> "_Node":
        """Return the node of a component below this one, made if it is new."""
        literal = literal_component(component) if is_glob else component
        if literal is not None:
            return self.literals.setdefault(literal, _Node())
        if component not in self.patterns:
            self.patterns[component] = (compile_component(component), _Node())
        return self.patterns[component][1]

    def matching(self, name: bytes) -> Iterator["_Node"]:
        if (node := self.literals.get(name)) is not None:
            yield node
        for pattern, node in self.patterns.values():
            if pattern.fullmatch(name) is not None:
                yield node

    @property
    def has_children(self) -> bool:
        return bool(self.literals or self.patterns)


class Place:
    """What the rules say of one directory: of its contents, and of the rules that lead deeper."""

    __slots__ = (
        *("_below", "_met", "_nodes", "contents", "is_open", "is_uniform", "levels"),
        "needs_listing",
    )

    def __init__(self, nodes: tuple[_Node, ...], contents: Decision | None, levels: int) -> None:
        self._nodes = nodes
        self._below: Place | None = None
        self._met: dict[bytes, tuple[Decision | None, Place]] = {}
        self.contents = contents if levels >= 0 else None
        """The decision over everything in the directory that no rule names; None: not covered."""
        self.levels = levels
        # One place stands for thousands of directories, each of which asks.
        self.is_uniform = not any(node.has_children for node in nodes)
        """True where no rule names anything inside: ``contents`` and ``below`` hold for all."""
        self.is_open = self.contents is not None or not self.is_uniform
        """True where something in the directory is or may be covered."""
        self.needs_listing = self.contents is not None or any(node.patterns for node in nodes)
        """True where the names are not known from the rules alone."""

    @property
    def is_cut(self) -> bool:
        """True where directories inside are left out only because no rule can say a deeper level.

        Who writes the greatest depth that there is means everything.
        """
        contents = self.contents
        return (
            self.levels == 0
            and contents is not None
            and contents.levels == DEPTH_MAX
            and contents.policy is not Policy.IGNORE_ALL
        )

    @property
    def below(self) -> "Place":
        """The place of a directory inside that no rule names. One object for all of them."""
        if self._below is None:
            self._below = Place((), self.contents, self.levels - 1)
        return self._below

    def named(self) -> set[bytes]:
        """Return the names inside that rules spell out."""
        return {name for node in self._nodes for name in node.literals}

    def own(self) -> "Iterator[Decision]":
        """Return the decisions of the rules that name this directory itself."""
        for node in self._nodes:
            found = (node.of_file, node.of_dir)
            yield from (each for each in found if each is not None and each.is_selected)

    def inner(self) -> "Iterator[Decision]":
        """Return the decisions of all rules that name something inside, at any depth."""
        pending = list(self._nodes)
        while pending:
            node = pending.pop()
            for child in (*node.literals.values(), *(found for _, found in node.patterns.values())):
                yield from (found for found in (child.of_file, child.of_dir) if found is not None)
                pending.append(child)

    def only_named(self) -> "Place":
        """Return the place without what it covers: only what rules name inside of it.

        For a symbolic link on the way to a named object. The administrator wrote the path through
        the link, as any lstat(2) takes it; the contents of ``dir=`` are never reached through one.
        """
        return Place(tuple(node for node in self._nodes if node.has_children), None, -1)

    def child(self, name: bytes) -> "tuple[Decision | None, Place]":
        """Return the decision over the object ``name`` in here, and its place as a directory."""
        if self.is_uniform:
            return self.contents, self.below
        if (met := self._met.get(name)) is not None:
            return met
        nodes = tuple(found for node in self._nodes for found in node.matching(name))
        if not nodes:
            return self.contents, self.below
        found = _entered(nodes, self.contents, self.levels - 1)
        if any(name in node.literals for node in self._nodes):
            # Names that rules spell out are as many as the rules; others are an attacker's choice.
            self._met[name] = found
        return found


def _entered(
    nodes: tuple[_Node, ...], contents: Decision | None, levels: int
) -> tuple[Decision | None, Place]:
    of_dir = _best(node.of_dir for node in nodes)
    of_object = _best(node.of_file for node in nodes) or of_dir or contents
    if of_dir is not None:
        contents, levels = of_dir, of_dir.levels
    return _selected(of_object), Place(nodes, _selected(contents), levels)


def _selected(decision: Decision | None) -> Decision | None:
    return decision if decision is not None and decision.is_selected else None


def _best(decisions: Iterator[Decision | None]) -> Decision | None:
    found = [decision for decision in decisions if decision is not None]
    return min(found, key=lambda decision: decision.order, default=None)


class Ruleset:
    """The rules of a configuration, ready to be asked.

    Args:
        selection: which of them a pass is for.
    """

    def __init__(self, settings: RuleSettings, selection: Selection = EVERYTHING) -> None:
        self._root = _Node()
        self.selection = selection
        self.decisions: list[Decision] = []
        """One for each selected rule that counts, in the order of the file."""
        for order, rule in enumerate(settings.rules):
            self._add(rule, order, settings)
        self._entered = _entered((self._root,), None, -1)

    def _add(self, rule: PathRule, order: int, settings: RuleSettings) -> None:
        node = self._root
        for component in rule.path.split(b"/")[1:]:
            # The root's path has one empty component: it is the root itself.
            node = node.child(component, rule.is_glob) if component else node
        decision = _decision(rule, order, settings, self.selection)
        # Same kind, same path: the first counts. The parser warns of the second.
        if rule.kind is RuleKind.FILE and node.of_file is None:
            node.of_file = decision
        elif rule.kind is RuleKind.DIR and node.of_dir is None:
            node.of_dir = decision
        else:
            return
        if decision.is_selected:
            self.decisions.append(decision)

    def root(self) -> tuple[Decision | None, Place]:
        """Return the decision over ``/`` itself, and its place."""
        return self._entered

    def locate(self, path: bytes) -> tuple[Decision | None, Place]:
        """Return the decision over an object, and its place as a directory."""
        decision, place = self.root()
        for component in path.split(b"/")[1:]:
            if component:
                decision, place = place.child(component)
        return decision, place

    def covers(self, path: bytes) -> bool:
        """True where a selected rule decides about the object, or all rules are selected."""
        return self.selection.groups is None or self.decide(path) is not None

    def decide(self, path: bytes) -> Decision | None:
        """Return the decision over the object at an absolute, normalised path; None: no rule."""
        return self.locate(path)[0]


def _decision(rule: PathRule, order: int, settings: RuleSettings, selection: Selection) -> Decision:
    mask = settings.masks[rule.policy]
    depth = settings.recursion_level if rule.depth is None else rule.depth
    return Decision(
        policy=rule.policy,
        mask=mask,
        severity=settings.policy_severities[rule.policy],
        rule=rule,
        levels=depth if rule.kind is RuleKind.DIR else -1,
        order=(rule.is_glob, order),
        hashes=Check.CHK in mask,
        grows=Check.SGROW in mask,
        watches_reading=Check.ATM in mask,
        is_quick=rule.group in selection.quick,
        is_selected=selection.has(rule.group),
    )
