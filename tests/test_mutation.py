"""No mistake in a rule survives, and no exception is left over: see mutation/."""

import pytest
from mutation import is_equivalent, rules, subject, subjects
from mutation.rules import mutants, targets

RULES = subject("rules")
TARGETS = {t.name: t for t in targets()}


@pytest.mark.parametrize("row", sorted({row for t in TARGETS.values() for row in t.rows}))
def test_without_a_mistake_every_check_passes(row):
    """Else the mutants would die of something else."""
    for check in rules.checks(row):
        check()


@pytest.mark.parametrize("name", TARGETS)
def test_no_mistake_survives(name):
    survivors = [
        str(mutant)
        for mutant in mutants(TARGETS[name])
        if not is_equivalent(RULES, mutant) and not RULES.is_killed(mutant)
    ]
    assert not survivors, "\n".join(["mutants that pass every check:", *survivors])


@pytest.mark.parametrize("name", subjects())
def test_the_exceptions_are_still_there(name):
    """Every equivalent mutant is one that would be made: none is left over."""
    of = subject(name)
    made = {(m.name, m.before, m.after) for m in of.mutants()} if of.equivalent else set()
    for (where, before), (_, known) in of.equivalent.items():
        for after in known:
            assert (where, before, after) in made


def test_every_rule_is_mutated():
    """Each primitive that has a rule has mutants, and they are many."""
    made = {t.name: sum(1 for _ in mutants(t)) for t in TARGETS.values()}
    assert sum(made.values()) > 300
    for primitive in rules.primitives().values():
        row = primitive.__name__.strip("_")
        own = [t for t in TARGETS if t.startswith(f"{row}.")]
        wanted = sum(1 for rule in primitive.rules if rule is not None)
        assert len(own) == wanted + (primitive.joint is not None), row


def test_rules_are_put_back():
    before = [list(p.rules) for p in rules.primitives().values()]
    target = TARGETS["tanh.rules[0]"]
    for mutant in mutants(target):
        with rules.in_place(mutant):
            assert target.original not in rules.primitives()["tanh"].rules
    assert [list(p.rules) for p in rules.primitives().values()] == before
