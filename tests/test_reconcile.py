"""What a sweep decides, for any archive, any sink and any past."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from uniadrs_scale.archive.decide import (
    Action,
    Decision,
    Fingerprint,
    Known,
    Policy,
    SourceItem,
    Tries,
    reconcile,
)
from uniadrs_scale.archive.product import count

NOW = datetime(2024, 6, 1, tzinfo=UTC)
RECIPE = Fingerprint(config="c", detector="d", version="1")


def make_item(name: str, identity: str = "i", days: float = 0, fault: str = "") -> SourceItem:
    when = NOW - timedelta(days=days)
    return SourceItem(id=name, when=when, hrefs=(), identity=identity, href="", fault=fault)


names = st.sampled_from(["a", "b", "c", "d", "../x"])
parts = st.sampled_from(["i", "j"])
items = st.lists(
    st.builds(make_item, names, parts, st.integers(0, 9), st.sampled_from(["", "broken"])),
    max_size=6,
)
recipes = st.builds(Fingerprint, config=parts, detector=parts, version=parts)
fingerprints = st.builds(lambda recipe, identity: replace(recipe, input=identity), recipes, parts)
tries = st.builds(
    lambda fingerprint, failures, cut: Tries(
        key=fingerprint.key, failures=failures, interruptions=cut, error="why"
    ),
    fingerprints, st.integers(0, 4), st.integers(0, 12),
)  # fmt: skip
known = st.builds(
    lambda products, tried: Known(
        products={make_item(name).name: f.to_dict() for name, f in products.items()},
        tries={make_item(name).name: t for name, t in tried.items()},
    ),
    st.dictionaries(names, fingerprints),
    st.dictionaries(names, tries),
)
policies = st.builds(
    Policy,
    tries=st.integers(1, 4),
    interruptions=st.just(10),
    oldest=st.none() | st.integers(0, 9).map(lambda days: NOW - timedelta(days=days)),
)
worlds = st.tuples(items, known, recipes, policies)


def carry_out(decisions: tuple[Decision, ...], before: Known) -> Known:
    """What the sink knows once every decision has been carried out well."""
    made = {d.name: d.fingerprint.to_dict() for d in decisions if d.action is Action.SCORE}
    left = {n: t for n, t in before.tries.items() if n not in made}
    return replace(before, products={**before.products, **made}, tries=left)


@given(worlds)
def test_every_item_is_decided_once_in_its_order(world) -> None:
    decisions = reconcile(*world)
    listed = world[0]
    once = [item for k, item in enumerate(listed) if item not in listed[:k]]
    assert [d.item for d in decisions] == once
    assert sum(count(decisions).values()) == len(once)
    assert all(d.reason for d in decisions)


@given(worlds)
def test_a_second_sweep_has_nothing_to_do(world) -> None:
    listed, before, recipe, policy = world
    first = reconcile(listed, before, recipe, policy)
    again = reconcile(listed, carry_out(first, before), recipe, policy)
    assert not [d for d in again if d.action is Action.SCORE]
    for one, other in zip(first, again, strict=True):
        assert other.action is (Action.KEEP if one.action is Action.SCORE else one.action)


@given(worlds)
def test_what_is_scored_is_missing_or_made_otherwise(world) -> None:
    listed, before, recipe, policy = world
    for decision in reconcile(listed, before, recipe, policy):
        product = before.products.get(decision.name)
        same = product == replace(recipe, input=decision.item.identity).to_dict()
        if decision.action is Action.SCORE:
            assert not same
        if decision.action is Action.KEEP:
            assert same or decision.item.fault
        tried = before.tries.get(decision.name)
        if decision.action is Action.PARKED:
            assert tried is not None
            assert tried.key == decision.fingerprint.key
            assert tried.failures >= policy.tries or tried.interruptions >= policy.interruptions


@given(worlds)
def test_one_scene_gets_one_product(world) -> None:
    scored = [d.name for d in reconcile(*world) if d.action is Action.SCORE]
    assert len(scored) == len(set(scored))


@given(worlds, st.randoms())
def test_no_decision_depends_on_the_order_of_items(world, random) -> None:
    listed, *rest = world
    shuffled = random.sample(listed, len(listed))
    before, after = (
        {
            (d.item.id, d.item.identity, d.item.when, d.item.fault): (d.action, d.reason)
            for d in all_
        }
        for all_ in (reconcile(listed, *rest), reconcile(shuffled, *rest))
    )
    assert before == after


@given(worlds)
def test_an_item_is_decided_without_looking_at_others(world) -> None:
    listed, *rest = world
    unique = list({item.id: item for item in listed}.values())
    together = reconcile(unique, *rest)
    alone = [reconcile([item], *rest)[0] for item in unique]
    backwards = reconcile(unique[::-1], *rest)[::-1]
    assert list(together) == alone == list(backwards)


@given(items, known, recipes)
def test_a_higher_bound_unparks(listed, before, recipe) -> None:
    patient = Policy(tries=5, interruptions=13, oldest=None)
    assert Action.PARKED not in {d.action for d in reconcile(listed, before, recipe, patient)}


def decide(item: SourceItem, before: Known, oldest: datetime | None = None) -> tuple[str, str]:
    policy = Policy(tries=3, interruptions=10, oldest=oldest)
    decision = reconcile([item], before, RECIPE, policy)[0]
    return decision.action, decision.reason


def test_reasons_say_what_changed() -> None:
    done = Known(products={"a": replace(RECIPE, input="old").to_dict()}, tries={})
    assert decide(make_item("a", "old"), done) == ("keep", "done")
    assert decide(make_item("a", "new"), done) == ("score", "changed: input")
    assert decide(make_item("b"), done) == ("score", "new")
    other = Known(products={"a": {"input": "i", "config": "x", "detector": "y"}}, tries={})
    assert decide(make_item("a"), other) == ("score", "changed: config, detector, version")


def test_tries_are_counted_for_one_fingerprint() -> None:
    key = replace(RECIPE, input="i").key
    failed = Known(products={}, tries={"a": Tries(key=key, failures=2, error="disk")})
    assert decide(make_item("a"), failed) == ("score", "try 3 of 3: disk")
    assert decide(make_item("a", "new"), failed) == ("score", "new")
    over = Known(products={}, tries={"a": Tries(key=key, failures=3, error="disk")})
    assert decide(make_item("a"), over) == ("parked", "failed 3 times, last: disk")
    cut = Known(products={}, tries={"a": Tries(key=key, interruptions=9)})
    assert decide(make_item("a"), cut) == ("score", "resumed")
    killer = Known(products={}, tries={"a": Tries(key=key, interruptions=10)})
    assert decide(make_item("a"), killer)[0] == "parked"


def test_a_map_outlives_a_source_that_cannot_be_read() -> None:
    done = Known(products={"a": replace(RECIPE, input="i").to_dict()}, tries={})
    action, reason = decide(make_item("a", "other", 900, fault="no answer"), done, NOW)
    assert (action, reason) == ("keep", "done; its input cannot be checked: no answer")


def test_retention_and_doubles() -> None:
    nothing = Known(products={}, tries={})
    assert decide(make_item("a", days=5), nothing, NOW - timedelta(days=4))[0] == "expired"
    assert decide(make_item("a", days=3), nothing, NOW - timedelta(days=4))[0] == "score"
    assert decide(make_item("a", days=4), nothing, NOW - timedelta(days=4))[0] == "score"
    done = Known(products={"a": replace(RECIPE, input="i").to_dict()}, tries={})
    assert decide(make_item("a", days=5), done, NOW - timedelta(days=4))[0] == "expired"
    policy = Policy(tries=3, interruptions=10, oldest=None)
    first, second = reconcile([make_item("a"), make_item("a", "j")], nothing, RECIPE, policy)
    assert first.action is second.action is Action.REFUSE
    assert first.reason.startswith("2 items of the source have the id 'a'")
