"""Who is the client: every step of the cross-check, and how it holds against hostile answers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.names import is_client_name
from needfire_server import lookup
from needfire_server.lookup import Identity, NameChecker, PeerName
from needfire_server.resolver import LookupBusyError, Resolved, Resolver
from needfire_testkit.fake_resolver import FakeResolver

PEER = "192.0.2.10"
NAME = "web1.example.org"


def _checker(resolver: Resolver, *, own_names: tuple[str, ...] = ()) -> NameChecker:
    return NameChecker(resolver, time_limit_s=5, cache_s=300, own_names=own_names)


def _sound() -> FakeResolver:
    return FakeResolver({NAME: [PEER]}, {PEER: NAME})


def _codes(identity: Identity) -> list[str]:
    return [finding.code for finding in identity.findings]


# ---- the steps ----------------------------------------------------------------------------


async def test_a_name_that_leads_to_its_address_and_back_is_confirmed() -> None:
    assert await _checker(_sound()).check(NAME, PEER) == Identity(NAME, (), True)


async def test_a_claim_that_does_not_resolve_is_reported() -> None:
    resolver = FakeResolver({"other.example.org": [PEER]}, {PEER: "other.example.org"})

    identity = await _checker(resolver).check("ghost.example.org", PEER)

    assert _codes(identity) == ["CANNOT_RESOLVE_CLIENT_NAME", "NO_PEER_ALIAS"]
    assert identity.findings[0].fields == {
        "client": "ghost.example.org",
        "peer": PEER,
        "reason": "Name or service not known",
    }
    assert not identity.is_confirmed


async def test_a_peer_without_a_name_is_reported_even_if_the_claim_leads_to_it() -> None:
    identity = await _checker(FakeResolver({NAME: [PEER]})).check(NAME, PEER)

    assert _codes(identity) == ["CANNOT_RESOLVE_PEER"]
    assert identity.is_confirmed, "the claimed name resolves to the address of the peer"


async def test_a_peer_without_a_name_does_not_confirm_a_claim_that_leads_elsewhere() -> None:
    identity = await _checker(FakeResolver({NAME: ["192.0.2.99"]})).check(NAME, PEER)

    assert _codes(identity) == ["CANNOT_RESOLVE_PEER"]
    assert not identity.is_confirmed


async def test_a_reverse_entry_that_leads_elsewhere_is_reported() -> None:
    """Whoever owns the address may call it web1.example.org; the owner of that name disagrees."""
    resolver = FakeResolver({NAME: ["192.0.2.99"]}, {PEER: NAME})

    identity = await _checker(resolver).check(NAME, PEER)

    assert _codes(identity) == ["REVERSE_LOOKUP_FAILED"]
    assert identity.findings[0].fields == {"client": NAME, "peer": PEER, "obj": NAME}
    assert not identity.is_confirmed


async def test_a_name_of_another_host_is_reported() -> None:
    resolver = FakeResolver(
        {NAME: ["192.0.2.1"], "web2.example.org": [PEER]}, {PEER: "web2.example.org"}
    )

    identity = await _checker(resolver).check(NAME, PEER)

    assert _codes(identity) == ["NO_PEER_ALIAS"]
    assert identity.findings[0].fields == {"client": NAME, "peer": PEER, "obj": "web2.example.org"}
    assert not identity.is_confirmed


async def test_another_name_of_the_same_address_is_a_match() -> None:
    resolver = FakeResolver(
        {NAME: [PEER, "192.0.2.11"], "www.example.org": [PEER]}, {PEER: "www.example.org"}
    )

    assert await _checker(resolver).check(NAME, PEER) == Identity(NAME, (), True)


async def test_a_claim_that_is_an_alias_of_the_peer_is_a_match() -> None:
    resolver = FakeResolver({NAME: [PEER]}, {PEER: NAME}, aliases={"intranet": NAME})

    assert (await _checker(resolver).check("intranet", PEER)).is_confirmed


@pytest.mark.parametrize("claim", [PEER, "::ffff:192.0.2.10"])
async def test_the_peers_own_address_needs_no_lookup(claim: str) -> None:
    resolver = FakeResolver()

    assert await _checker(resolver).check(claim, PEER) == Identity(claim, (), True)
    assert not resolver.asked


async def test_another_hosts_address_is_no_match() -> None:
    identity = await _checker(_sound()).check("192.0.2.99", PEER)

    assert _codes(identity) == ["NO_PEER_ALIAS"]


@pytest.mark.parametrize("claim", ["WEB1.Example.ORG", "web1.example.org."])
async def test_neither_case_nor_the_dot_of_the_root_counts(claim: str) -> None:
    resolver = FakeResolver({NAME: [PEER], f"{NAME}.": [PEER]}, {PEER: "Web1.Example.Org."})

    identity = await _checker(resolver).check(claim, PEER)

    assert (identity.name, identity.findings) == (claim.lower(), ())


async def test_a_mapped_peer_is_its_ipv4_address() -> None:
    assert (await _checker(_sound()).check(NAME, f"::ffff:{PEER}")).findings == ()


async def test_every_code_is_one_of_the_catalogue() -> None:
    for code in (
        "CANNOT_RESOLVE_CLIENT_NAME",
        "CANNOT_RESOLVE_PEER",
        "REVERSE_LOOKUP_FAILED",
        "NO_PEER_ALIAS",
    ):
        assert CATALOGUE[code].state == 5


# ---- loopback -----------------------------------------------------------------------------


async def test_a_client_on_the_servers_own_host_has_all_of_its_names() -> None:
    resolver = FakeResolver(
        {"localhost": ["127.0.0.1"], "log.example.org": ["192.0.2.1"]}, {"127.0.0.1": "localhost"}
    )
    checker = _checker(resolver, own_names=("Log.example.org", "log"))

    assert (await checker.check("log.example.org", "127.0.0.1")).findings == ()
    assert (await checker.check("localhost", "127.0.0.1")).findings == ()
    assert _codes(await checker.check("web1.example.org", "127.0.0.1"))[-1] == "NO_PEER_ALIAS"


async def test_the_own_name_on_another_loopback_address_is_a_match() -> None:
    """Debian's /etc/hosts: 127.0.1.1 is the host's name, and clients come from 127.0.0.1."""
    resolver = FakeResolver(
        {"localhost": ["127.0.0.1"], NAME: ["127.0.1.1"]}, {"127.0.0.1": "localhost"}
    )

    assert await _checker(resolver).check(NAME, "127.0.0.1") == Identity(NAME, (), True)


async def test_a_loopback_address_without_a_name_is_no_finding_of_its_own() -> None:
    resolver = FakeResolver({NAME: ["192.0.2.1"]})

    assert _codes(await _checker(resolver).check(NAME, "127.0.0.2")) == ["NO_PEER_ALIAS"]


# ---- the second method, and access lists ---------------------------------------------------


async def test_the_name_of_the_address_is_taken_where_both_directions_agree() -> None:
    assert await _checker(_sound()).name_from_address(PEER) == NAME


@pytest.mark.parametrize(
    "resolver",
    [
        FakeResolver(),
        FakeResolver({NAME: ["192.0.2.99"]}, {PEER: NAME}),
        FakeResolver({}, {PEER: NAME}),
        FakeResolver({"a/../b": [PEER]}, {PEER: "a/../b"}),
        FakeResolver({"0xc000020a": [PEER]}, {PEER: "0xc000020a"}),
        FakeResolver({PEER: [PEER]}, {PEER: PEER}),
    ],
    ids=["no name", "disagree", "name leads nowhere", "path", "number", "address"],
)
async def test_otherwise_the_numeric_address_is_the_name(resolver: FakeResolver) -> None:
    assert await _checker(resolver).name_from_address(f"::ffff:{PEER}") == PEER


async def test_localhost_is_called_as_it_resolves() -> None:
    resolver = FakeResolver({"localhost": ["127.0.0.1"]}, {"127.0.0.1": "localhost"})

    assert await _checker(resolver).name_from_address("127.0.0.1") == "localhost"


async def test_access_lists_get_a_name_with_its_reliability() -> None:
    assert await _checker(_sound()).peer_name(PEER) == PeerName(NAME)
    assert await _checker(FakeResolver()).peer_name(PEER) == PeerName(None)
    spoofed = FakeResolver({NAME: ["192.0.2.99"]}, {PEER: NAME})
    assert await _checker(spoofed).peer_name(PEER) == PeerName(NAME, is_paranoid=True)


# ---- hostile answers ------------------------------------------------------------------------


@given(st.text(max_size=300))
async def test_whatever_the_reverse_entry_says_only_a_client_name_comes_out(hostile: str) -> None:
    resolver = FakeResolver({hostile.lower().removesuffix("."): [PEER]}, {PEER: hostile})

    name = await _checker(resolver).name_from_address(PEER)

    assert is_client_name(name)


@given(st.text(max_size=300))
async def test_a_claim_that_cannot_be_a_name_is_never_looked_up(claim: str) -> None:
    resolver = FakeResolver()
    identity = await _checker(resolver).check(claim, PEER)

    assert all(is_client_name(asked) for asked in resolver.asked)
    assert identity.name.isprintable()
    if not is_client_name(claim):
        assert not identity.is_confirmed
        assert _codes(identity) == ["CANNOT_RESOLVE_CLIENT_NAME"]


async def test_a_name_server_that_never_answers_costs_the_time_limit_and_no_more() -> None:
    resolver = _sound()
    resolver.hanging = {NAME, PEER}
    checker = NameChecker(resolver, time_limit_s=0.01, cache_s=300)

    identity = await checker.check(NAME, PEER)

    assert _codes(identity) == ["CANNOT_RESOLVE_CLIENT_NAME", "CANNOT_RESOLVE_PEER"]
    assert identity.findings[0].fields["reason"] == "no answer within 0.01 s"
    assert not identity.is_confirmed
    assert resolver.open == 0


async def test_one_peer_cannot_have_more_than_its_turns() -> None:
    claims = [f"ghost{number}.example.org" for number in range(20)]
    resolver = FakeResolver()
    resolver.hanging = set(claims)
    checker = NameChecker(resolver, time_limit_s=0.05, cache_s=300)

    async with asyncio.TaskGroup() as group:
        for claim in claims:
            group.create_task(checker.check(claim, PEER))
        honest = group.create_task(checker.check(NAME, "192.0.2.11"))

    assert resolver.most_open <= 2 * (lookup.PEER_TURNS + 1)
    assert "lookup busy" not in str(honest.result().findings)


async def test_who_gets_no_turn_in_time_is_told_that_lookups_are_busy() -> None:
    claims = [f"ghost{number}.example.org" for number in range(lookup.PEER_TURNS + 1)]
    resolver = FakeResolver()
    resolver.hanging = set(claims)
    checker = NameChecker(resolver, time_limit_s=0.02, cache_s=300)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(checker.check(claim, PEER)) for claim in claims]

    reasons = [task.result().findings[0].fields["reason"] for task in tasks]
    assert sum(reason.startswith("lookup busy") for reason in reasons) == 1
    assert not any(task.result().is_confirmed for task in tasks)


async def test_a_fleet_behind_one_address_only_waits_for_its_turns() -> None:
    names = [f"web{number}.example.org" for number in range(10 * lookup.PEER_TURNS)]
    resolver = FakeResolver({name: [PEER] for name in names}, {PEER: names[0]})
    checker = _checker(resolver)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(checker.check(name, PEER)) for name in names]

    assert all(task.result().findings == () for task in tasks)


async def test_a_busy_resolver_is_a_finding_and_is_not_remembered() -> None:
    class BusyOnce(FakeResolver):
        async def resolve(self, name: str) -> Resolved:
            if not self.asked[name]:
                self.asked[name] += 1
                raise LookupBusyError
            return await super().resolve(name)

    checker = _checker(BusyOnce({NAME: [PEER]}, {PEER: "other.example.org"}))

    first = await checker.check(NAME, PEER)
    second = await checker.check(NAME, PEER)

    assert first.findings[0].fields["reason"].startswith("lookup busy")
    assert second.is_confirmed


# ---- the cache ------------------------------------------------------------------------------


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_answers_are_kept_for_their_time_and_no_longer() -> None:
    resolver, clock = _sound(), _Clock()
    checker = NameChecker(resolver, cache_s=300, clock=clock)

    await checker.check(NAME, PEER)
    clock.now += 299.9
    await checker.check(NAME, PEER)
    assert resolver.asked == {NAME: 1, PEER: 1}
    clock.now += 0.1
    await checker.check(NAME, PEER)
    assert resolver.asked[PEER] == 2


async def test_failures_are_kept_for_less() -> None:
    resolver, clock = FakeResolver(), _Clock()
    checker = NameChecker(resolver, cache_s=300, clock=clock)

    await checker.check(NAME, PEER)
    clock.now += lookup.FAILURE_CACHE_S_MAX - 0.1
    await checker.check(NAME, PEER)
    assert resolver.asked[NAME] == 1
    clock.now += 0.1
    await checker.check(NAME, PEER)
    assert resolver.asked[NAME] == 2


async def test_a_reload_forgets_every_answer() -> None:
    resolver = FakeResolver()
    checker = _checker(resolver)
    await checker.check(NAME, PEER)
    resolver.forward[NAME], resolver.reverse_names[PEER] = [PEER], NAME

    checker.clear()

    assert (await checker.check(NAME, PEER)).findings == ()


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "CACHE_ENTRIES_MAX", 4)
    resolver = FakeResolver()
    checker = _checker(resolver)

    for number in range(100):
        await checker.name_from_address(f"192.0.2.{number}")

    assert len(checker._cache) == 4
    assert not checker._gates
