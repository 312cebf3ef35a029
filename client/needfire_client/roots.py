"""Where the rules really begin: a ``dir=`` that names a symbolic link means what it leads to.

On many systems /bin is a link to usr/bin. Samhain refuses such a line, and others scan nothing
and say nothing. Here the directory behind it is covered as if a line below the others named it,
and the check says so. The link itself stays what it is, an object that is compared.

Nothing is covered differently by it that another line covers already: not even by a deeper or a
shallower one. An exclusion is not carried through a link, for what it would exclude is not what
the line names.
"""

import os

from needfire_client.policy import Ruleset
from needfire_protocol.plain_classes import replace
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import PathRule, Policy, RuleKind

__all__ = ["with_resolved_roots"]


def with_resolved_roots(settings: AgentSettings) -> AgentSettings:
    """Return the settings with a rule more for each root that is a link to a directory.

    What a link leads to is looked up once: a reload does it again, and one that is changed
    meanwhile is reported as what it is.
    """
    for rule in settings.rules:
        real = _target(rule)
        if real is not None and Ruleset(settings).locate(real)[1].contents is None:
            added = replace(rule, path=real)
            settings = replace(settings, rules=(*settings.rules, added))
    return settings


def _target(rule: PathRule) -> bytes | None:
    if rule.kind is not RuleKind.DIR or rule.is_glob or rule.policy is Policy.IGNORE_ALL:
        return None
    if not os.path.islink(rule.path):
        return None
    real = os.path.realpath(rule.path)
    return real if os.path.isdir(real) else None
