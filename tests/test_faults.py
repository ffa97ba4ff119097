"""The short form of the campaign of faults; `python -m tests.faults` is the long one."""

import os

import pytest
from faults import Campaign


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_kills_signals_and_damage_lose_and_hide_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    campaign = Campaign(tmp_path, seed=1)
    campaign.round(["maml"])
    assert not campaign.failures, "\n".join(campaign.failures)
    assert campaign.tally.total() == 4 + 2 * 4
