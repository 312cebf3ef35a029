"""Which of the server's own events are wanted and kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.severity import Severity
from needfire_server.event_classes import SWITCHABLE, ClassSettings, class_settings
from needfire_testkit.rc import server_rc

classes = st.sampled_from(EventClass)
severities = st.sampled_from(Severity)
FIXED = (EventClass.INTEGRITY, EventClass.ALARM, EventClass.PROVISIONING)


@given(severities)
def test_everything_is_kept_by_default_but_ordinary_traffic(severity: Severity) -> None:
    default = class_settings(server_rc(""))
    assert default == ClassSettings()
    for each in EventClass:
        assert default.takes(each)
        needs_a_person = severity >= Severity.WARN
        assert default.persists(each, severity) == (
            each is not EventClass.TRAFFIC or needs_a_person
        )


@given(severities, st.booleans())
def test_alarms_integrity_and_provisioning_cannot_be_switched_off(
    severity: Severity, is_suspended: bool
) -> None:
    everything = frozenset(SWITCHABLE)
    settings = ClassSettings(everything, everything, is_suspended)
    for each in FIXED:
        assert settings.takes(each)
        assert settings.persists(each, severity)


@given(st.sampled_from(SWITCHABLE), severities)
def test_what_is_suspended_is_not_kept_whatever_it_says(
    each: EventClass, severity: Severity
) -> None:
    assert not ClassSettings(is_suspended=True, unpersisted=frozenset()).persists(each, severity)


@pytest.mark.parametrize("each", SWITCHABLE)
def test_each_class_has_its_directives(each: EventClass) -> None:
    name = each.value.capitalize()
    off = class_settings(server_rc(f"[Misc]\nEnable{name}=no\nPersist{name}=no\n"))
    assert off.disabled == {each}
    assert each in off.unpersisted
    on = class_settings(server_rc(f"[Misc]\nPersist{name}=yes\n"))
    assert on.persists(each, Severity.DEBUG)
