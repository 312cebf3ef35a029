"""Roles on the admin socket: who has one, what it lets pass, and what too many refusals do."""

import asyncio
import grp
import os
import pwd
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import StorageError
from needfire_server import lockout
from needfire_server.admin.backend import Answer
from needfire_server.admin.connection import SocketConnection
from needfire_server.admin.gate import Gate, PeerIdentity
from needfire_server.admin.members import access_of, lockout_of, unknown_members
from needfire_server.admin.requests import AdminRefusedError
from needfire_server.admin.roles import Access, Role, target_of
from needfire_server.admin.verbs import VERBS, roles_for
from needfire_server.lockout import Counted, Failures, LockLimits, Lockout, Settled
from needfire_server.storage import refusal_rows
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.admin_server import AdminServer
from needfire_testkit.rc import server_rc
from needfire_testkit.stores import StorePlace

OWN_UID = os.geteuid()
NO_AUDITOR = Access(
    {Role.ADMINISTRATORS: frozenset({OWN_UID}), Role.AGENTS: frozenset({OWN_UID})}, {}
)
AUDITOR_ONLY = Access({Role.AUDITORS: frozenset({OWN_UID})}, {})
uids = st.integers(0, 5)
roles = st.sampled_from(Role)
members = st.dictionaries(roles, st.frozensets(uids))


# ---- which role a verb needs ----------------------------------------------------


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_can_be_asked_for_by_somebody(verb: str) -> None:
    assert roles_for(verb)
    resource, operation = target_of(verb)
    assert resource
    assert operation


def test_what_changes_something_is_not_for_auditors() -> None:
    changing = [v for v in VERBS if v.endswith(("put", "remove")) or v in ("register", "send")]
    assert len(changing) >= 5
    for verb in changing:
        assert Role.AUDITORS not in roles_for(verb)


def test_approvers_put_baselines_and_nothing_else_in_place() -> None:
    assert Role.AGENTS in roles_for("baseline-put")
    for verb in ("config-put", "register", "clients-remove", "send"):
        assert roles_for(verb) == {Role.ADMINISTRATORS}


def test_only_auditors_read_the_audit_log() -> None:
    assert roles_for("audit-show") == roles_for("audit-export") == {Role.AUDITORS}


def test_a_verb_that_nobody_listed_is_the_administrators() -> None:
    assert roles_for("made-up") == {Role.ADMINISTRATORS}


@given(members, members, uids, st.frozensets(uids))
def test_a_role_comes_from_the_user_or_from_one_of_the_groups(
    users: dict[Role, frozenset[int]],
    groups: dict[Role, frozenset[int]],
    uid: int,
    gids: frozenset[int],
) -> None:
    found = Access(users, groups).roles_of(uid, gids)
    for role in Role:
        has = uid in users.get(role, frozenset()) or bool(gids & groups.get(role, frozenset()))
        assert (role in found) == has


@given(members, members)
def test_the_socket_is_opened_only_where_others_have_a_role(
    users: dict[Role, frozenset[int]], groups: dict[Role, frozenset[int]]
) -> None:
    others = Access(users, groups).others_than({0})
    assert others == (any(groups.values()) or any(uid for each in users.values() for uid in each))


# ---- who has it, by the configuration -------------------------------------------


def test_root_and_the_own_user_administer_and_approve_by_themselves() -> None:
    access = access_of(server_rc(""))
    for uid in (0, OWN_UID):
        assert {Role.ADMINISTRATORS, Role.AGENTS} <= access.roles_of(uid, ())


def test_who_reads_the_audit_log_is_the_configurations_word_alone() -> None:
    access = access_of(server_rc("[Misc]\nRoleAuditors=nobody\n"))
    assert Role.AUDITORS not in access.roles_of(0, ())
    assert access.roles_of(pwd.getpwnam("nobody").pw_uid, ()) == {Role.AUDITORS}


def test_groups_stand_behind_an_at_sign() -> None:
    access = access_of(server_rc("[Misc]\nRoleAgents=@daemon\nRoleAgents=nobody\n"))
    assert access.roles_of(54_321, [grp.getgrnam("daemon").gr_gid]) == {Role.AGENTS}
    assert access.roles_of(pwd.getpwnam("nobody").pw_uid, ()) == {Role.AGENTS}
    assert access.roles_of(54_321, [54_321]) == set()


def test_users_of_the_old_directive_are_administrators() -> None:
    access = access_of(server_rc("[Misc]\nSetSocketAllowUid=4711\n"))
    assert access.roles_of(4711, ()) == {Role.ADMINISTRATORS}


def test_names_that_nobody_has_are_told_and_give_nothing() -> None:
    settings = server_rc("[Misc]\nRoleAuditors=no-such-user\nRoleAgents=@no-such-group\n")
    assert unknown_members(settings) == ("@no-such-group", "no-such-user")
    assert access_of(settings).groups[Role.AGENTS] == frozenset()
    assert access_of(settings).users[Role.AUDITORS] == frozenset()


def test_the_lock_is_configured_in_words() -> None:
    limits = lockout_of(server_rc("[Misc]\nAdminFailuresMax=2\nAdminLockTime=1h\n"))
    assert limits == LockLimits(2, 3_600_000_000)


# ---- the lock -------------------------------------------------------------------


def test_refusals_in_a_row_lock_for_a_while_and_are_told_later() -> None:
    lockout = Lockout(LockLimits(3, 1_000))
    assert [lockout.refused(7, now) for now in (10, 11)] == [Counted(), Counted()]
    assert lockout.locked_until_us(7, 11) is None
    assert lockout.refused(7, 12) == Counted(locks_us=1_012)
    assert lockout.locked_until_us(7, 12) == 1_012
    assert lockout.locked_until_us(7, 1_011) == 1_012
    locked = Counted(was_locked_us=1_012)
    assert lockout.refused(7, 500) == locked, "what is refused while locked makes no lock longer"
    assert lockout.locked_until_us(7, 1_012) is None
    assert lockout.succeeded(7) == Failures(4, 10, 500)
    assert lockout.succeeded(7) is None


def test_a_success_begins_the_count_anew() -> None:
    lockout = Lockout(LockLimits(2, 1_000))
    for now in range(10):
        assert lockout.refused(7, now) == Counted()
        assert lockout.succeeded(7) == Failures(1, now, now)


def test_a_clock_that_was_set_back_locks_nobody_for_longer() -> None:
    lockout = Lockout(LockLimits(1, 1_000))
    assert lockout.refused(7, 1_000_000).locks_us is not None
    assert lockout.locked_until_us(7, 1_000_000) is not None
    assert lockout.locked_until_us(7, 5) is None


@given(st.lists(st.tuples(uids, st.booleans(), st.integers(0, 50))), st.integers(1, 4))
def test_nobody_is_locked_who_was_not_refused_often_enough(
    steps: list[tuple[int, bool, int]], failures_max: int
) -> None:
    lockout, now, in_a_row = Lockout(LockLimits(failures_max, 100)), 0, dict.fromkeys(range(6), 0)
    for uid, is_refused, later in steps:
        now += later
        if is_refused:
            in_a_row[uid] += 1
            lockout.refused(uid, now)
        elif lockout.locked_until_us(uid, now) is None:
            lockout.succeeded(uid)
            in_a_row[uid] = 0
        if in_a_row[uid] < failures_max:
            assert lockout.locked_until_us(uid, now) is None


def test_the_memory_for_users_is_bounded() -> None:
    lockout = Lockout(LockLimits(2, 10**9))
    for uid in range(2_000):
        lockout.refused(uid, uid)
    assert lockout.succeeded(0) is None
    assert lockout.succeeded(1_999) is not None


# ---- through the socket ---------------------------------------------------------


async def ask(server: AdminServer, verb: str) -> Answer:
    def work() -> Answer:
        with SocketConnection(str(server.socket_path), told.append) as connection:
            return connection.call(verb, {})

    told: list[str] = []
    answer = await asyncio.to_thread(work)
    return Answer({**answer.result, "told": told})


async def refusal(server: AdminServer, verb: str) -> str:
    with pytest.raises(AdminRefusedError) as caught:
        await ask(server, verb)
    return str(caught.value)


async def test_a_verb_without_its_role_is_refused_and_recorded(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path, access=AUDITOR_ONLY) as server:
        assert "needs the role Administrators" in await refusal(server, "clients-remove")
        assert server.codes() == ["AUTHZ_FAIL"]
        fields = server.last()
        assert (fields["resource"], fields["operation"]) == ("clients", "remove")
        assert server.raised[-1].msg.endswith(" may not do this: remove (resource: clients)")
        assert (fields["uid"], fields["role"]) == (OWN_UID, "Administrators")


def banner(count: int) -> str:
    attempts = "was 1 failed login attempt" if count == 1 else f"were {count} failed login attempts"
    return f"There {attempts} since the last successful login."


async def test_the_next_success_tells_of_the_refusals_before_it(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path, access=NO_AUDITOR) as server:
        assert (await ask(server, "status")).result["told"] == []
        for _ in range(3):
            await refusal(server, "audit-show")
        told: Any = (await ask(server, "status")).result["told"]
        last, count = told
        assert count == banner(3)
        assert re.fullmatch(
            r"Last failed login: .{19} UTC 2\d{3} from \S+ on needfire-admin", last
        ), last
        assert (await ask(server, "status")).result["told"] == []


async def test_what_is_refused_to_somebody_without_any_role_counts_as_well(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path, access=Access({}, {})) as server:
        assert "may not steer this server" in await refusal(server, "status")
        assert server.codes() == ["ADMIN_REFUSED"]
        # Told, and counted in the store, once a minute: anybody can knock.
        await refusal(server, "status")
        assert server.codes() == ["ADMIN_REFUSED"]
    async with AdminServer.running(tmp_path, access=NO_AUDITOR) as server:
        told: Any = (await ask(server, "status")).result["told"]
        assert told[1] == banner(1)


async def test_too_many_refusals_at_once_lock_the_user_out(tmp_path: Path) -> None:
    limits = LockLimits(5, 900_000_000)
    async with AdminServer.running(tmp_path, access=NO_AUDITOR, limits=limits) as server:
        refusals = await asyncio.gather(*(refusal(server, "audit-show") for _ in range(30)))
        assert sum("needs the role Auditors" in text for text in refusals) == 5
        assert sum("is locked out until 2" in text for text in refusals) == 25
        assert server.codes() == ["AUTHZ_FAIL"] * 5 + ["ADMIN_LOCKED"]
        assert "is locked out until" in await refusal(server, "status")
        with pytest.raises(AdminRefusedError) as caught:
            await ask(server, "status")
        assert "ask an administrator" in (caught.value.hint or "")
        assert "needfire-admin" not in (caught.value.hint or "")


async def test_a_lock_ends_and_what_was_refused_meanwhile_is_told(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path, access=NO_AUDITOR, limits=LockLimits(1, 1)) as server:
        await refusal(server, "audit-show")
        async with asyncio.timeout(20):
            while "ADMIN_UNLOCKED" not in server.codes():
                await asyncio.sleep(0)
        assert server.codes() == ["AUTHZ_FAIL", "ADMIN_LOCKED", "ADMIN_UNLOCKED"]
        told: Any = (await ask(server, "status")).result["told"]
        assert told[1] == banner(1)


async def test_a_restart_opens_no_lock_and_forgets_no_refusal(tmp_path: Path) -> None:
    limits = LockLimits(3, 900_000_000)
    async with AdminServer.running(tmp_path, access=NO_AUDITOR, limits=limits) as server:
        for _ in range(3):
            await refusal(server, "audit-show")
    async with AdminServer.running(tmp_path, access=NO_AUDITOR, limits=limits) as server:
        assert "is locked out until" in await refusal(server, "status")
        assert server.codes() == []
    async with AdminServer.running(tmp_path, access=NO_AUDITOR, limits=LockLimits(3, 1)) as server:
        told: Any = (await ask(server, "status")).result["told"]
        assert told[1] == banner(4)
        assert (await ask(server, "status")).result["told"] == []


async def test_who_may_ask_still_can_while_the_store_fails_and_is_told_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AdminServer.running(tmp_path, access=NO_AUDITOR) as server:

        async def fails(*_arguments: Any, **_more: Any) -> None:
            raise StorageError("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(server.store, "count_refusal", fails)
            patch.setattr(server.store, "settle_refusals", fails)
            await refusal(server, "audit-show")
            told: Any = (await ask(server, "status")).result["told"]
            assert told[1] == banner(1)
            for _ in range(5):
                await refusal(server, "audit-show")
            assert "is locked out until" in await refusal(server, "status")
        assert "is locked out until" in await refusal(server, "status")


# ---- the lock in the store --------------------------------------------------------


async def test_refusals_at_several_servers_lock_at_the_same_count(
    place: StorePlace, tmp_path: Path
) -> None:
    """Servers on one PostgreSQL; on SQLite the same server, twice as busy."""
    (tmp_path / "second").mkdir()
    first = place.open()
    second = first if place.is_sqlite else place.open(directory=tmp_path / "second")
    try:
        limits = LockLimits(5, 900_000_000)
        counted = await asyncio.gather(
            *(each.count_refusal("eve", 1_000, limits) for each in (first, second) * 20)
        )
        assert sum(each == Counted() for each in counted) == 4
        assert sum(each.locks_us is not None for each in counted) == 1
        assert sum(each.was_locked_us is not None for each in counted) == 35
        assert (await second.settle_refusals("eve", 2_000, limits)).locked_us == 900_001_000
        assert await first.settle_refusals("eve", 10**9, limits) == Settled(
            failures=Failures(41, 1_000, 2_000)
        )
        assert await second.settle_refusals("eve", 10**9, limits) == Settled()
        assert await second.settle_refusals("adam", 1, limits) == Settled()
    finally:
        first.close()
        second.close()


async def refuse_each(
    store: DatabaseStore,
    word: str,
    count: int,
    first_us: int,
    limits: LockLimits | None = None,
    *,
    is_stranger: bool = False,
) -> None:
    """Refuse users of whom the number makes the name, one a microsecond."""
    for number in range(count):
        await store.count_refusal(
            f"{word}{number}", first_us + number, limits or LockLimits(), is_stranger=is_stranger
        )


async def test_the_store_remembers_a_bounded_number_of_users(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_rows, "USERS_MAX", 3)
    await refuse_each(store, "user", 5, 0)
    settled = [await store.settle_refusals(f"user{n}", 10, LockLimits()) for n in range(5)]
    assert [each.failures is not None for each in settled] == [False, False, True, True, True]


async def test_strangers_open_no_lock_and_drive_nobody_out(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User namespaces give a local user thousands of numbers, each of which may knock."""
    monkeypatch.setattr(refusal_rows, "USERS_MAX", 6)
    limits = LockLimits(failures_max=2)
    await store.count_refusal("eve", 10, limits)
    locked = await store.count_refusal("eve", 10, limits)
    assert locked.locks_us is not None
    await store.count_refusal("adam", 11, limits)
    await refuse_each(store, "uid ", 20, 20, limits, is_stranger=True)
    await refuse_each(store, "late", 2, 50, limits)
    assert (await store.settle_refusals("eve", 60, limits)).locked_us == locked.locks_us
    assert (await store.settle_refusals("adam", 60, limits)).failures is not None


async def test_a_lock_holds_however_many_others_are_refused(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_rows, "USERS_MAX", 3)
    limits = LockLimits(failures_max=1)
    await store.count_refusal("eve", 10, limits)
    await refuse_each(store, "user", 6, 20)
    assert (await store.settle_refusals("eve", 60, limits)).locked_us is not None


def test_a_lock_in_memory_holds_however_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "USERS_MAX", 4)
    kept = lockout.Lockout(LockLimits(failures_max=2))
    for _ in range(2):
        kept.refused("eve", 10)
    for number in range(10):
        kept.refused(f"uid {number}", 20 + number, is_stranger=True)
        kept.refused(f"user{number}", 20 + number)
    assert kept.locked_until_us("eve", 60) is not None


async def test_all_strangers_together_are_told_of_a_few_times() -> None:
    told: list[str] = []

    def record(code: str, /, **_: object) -> None:
        told.append(code)

    gate = Gate(Access({}, {}), LockLimits(), record, _Counting())
    for uid in range(5_000, 6_200):
        with pytest.raises(AdminRefusedError):
            await gate.admit(PeerIdentity(uid, frozenset(), f"uid {uid}"))
    assert len(told) == 20
    assert len(gate._strangers) <= 1_024


class _Counting:
    """A store that counts nobody."""

    async def count_refusal(self, *_: object, **__: object) -> Counted:
        return Counted()

    async def settle_refusals(self, *_: object, **__: object) -> Settled:
        return Settled()
