"""What hosts of a scope share, on a real PostgreSQL: each file reaches the leader's mirror, each answer its host, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.postgres import Cluster
from tests.contract.scoped import SharingHost

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def hosts(tmp_path: Path, cluster: Cluster) -> tuple[SharingHost, SharingHost]:
    url = cluster.new_database()
    return SharingHost(tmp_path, url, "a"), SharingHost(tmp_path, url, "b")


def test_the_leader_sees_the_files_of_every_host(hosts: tuple[SharingHost, SharingHost]) -> None:
    a, b = hosts
    text = a.promote("x").read_text()
    asked = a.intend("y.json").read_text()
    b.promote("x", fitness=0.7)
    a.exchange()
    b.exchange(leading=True)
    found = b.mirrored()
    assert sorted(found) == ["intents/a@y.json", "promotions/a@x.json", "promotions/b@x.json"]
    assert (found["promotions/a@x.json"], found["intents/a@y.json"]) == (text, asked)
