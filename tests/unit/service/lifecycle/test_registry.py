"""The registry: which version is leased, and when it closes."""

from __future__ import annotations

import pytest

from service.errors import NoActiveModel, UnknownModel
from tests.unit.service.lifecycle.registry_bench import Bench, OnBench, lease
from tests.unit.service.scoring.fake_stages import until


def test_the_newest_version_goes_live(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(NoActiveModel, match="no model is published yet"), lease(bench):
            pass
        for version in (2, 10, 9):
            bench.publish(version)
        await bench.until_live(10)
        await bench.looked()
        assert ("tiny", 9) not in bench.gate.admitted
        assert ("tiny", 2) not in bench.gate.admitted
        bench.publish(11)
        await bench.until_live(11)
        bench.publish(5)
        await bench.looked()
        assert bench.live() == 11
        assert ("tiny", 5) not in bench.gate.admitted

    on_bench(test)


def test_leases_are_counted_and_a_version_drains_before_it_closes(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        first, second = lease(bench), lease(bench)
        with first as old:
            assert old.leases == 1
            assert bench.value("leases", version="1") == 1
            with second as same:
                assert same is old
                assert old.leases == 2
                bench.publish(2)
                await bench.until_live(2)
                assert bench.state(1) == "draining"
                assert bench.state(2) == "ready"
                with lease(bench) as new, lease(bench, "tiny", 1) as pinned:
                    assert new.manifest.version == 2
                    assert pinned is old  # still loaded, so it can still be asked for
                    assert bench.value("leases", version="2") == 1
                    assert old.leases == 3
            assert bench.state(1) == "draining"
            assert bench.value("version_state", version="1", state="draining") == 1
        assert bench.state(1) == "closed"
        assert bench.value("leases", version="1") is None
        assert bench.value("version_state", version="1", state="draining") is None
        assert bench.value("version_state", version="1", state="closed") == 1
        model = bench.model()
        assert model is not None
        assert list(model.loaded) == [2]
        with (
            pytest.raises(UnknownModel, match="tiny version 1 is not loaded; loaded: 2"),
            lease(bench, "tiny", 1),
        ):
            pass
        assert bench.value("swaps_total") == 2

    on_bench(test)


def test_a_version_nobody_holds_closes_at_the_swap(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with lease(bench):
            pass
        assert bench.state(1) == "ready"  # the live one stays, whoever leaves
        bench.publish(2)
        await bench.until_live(2)
        assert bench.state(1) == "closed"

    on_bench(test)


def test_a_failing_request_gives_its_lease_back(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with pytest.raises(ZeroDivisionError), lease(bench) as held:
            raise ZeroDivisionError
        assert held.leases == 0
        assert bench.value("leases", version="1") == 0

    on_bench(test)


def test_the_old_version_serves_while_the_new_one_loads(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        bench.gate.open.clear()
        bench.publish(2)
        await until(lambda: bench.state(2) == "loading")
        with lease(bench) as held:
            assert held.manifest.version == 1
        with pytest.raises(UnknownModel, match="version 2 is not loaded"), lease(bench, "tiny", 2):
            pass
        assert bench.value("version_state", version="2", state="loading") == 1
        bench.gate.open.set()
        await bench.until_live(2)

    on_bench(test)


def test_which_model_is_meant(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with lease(bench) as only, lease(bench, "tiny") as named, lease(bench, None, 1) as pinned:
            assert only is named is pinned
        with (
            pytest.raises(UnknownModel, match="no model 'large'; served: tiny"),
            lease(bench, "large"),
        ):
            pass
        bench.publish(1, "other")
        await bench.until_live(1, "other")
        with pytest.raises(UnknownModel, match="name one of other, tiny"), lease(bench):
            pass
        with lease(bench, "other") as other:
            assert other.manifest.model == "other"

    on_bench(test)


def test_closed_versions_are_remembered_for_a_while(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        for version in range(1, 10):
            bench.publish(version)
            await bench.until_live(version)
        model = bench.model()
        assert model is not None
        assert sorted(model.statuses) == [4, 5, 6, 7, 8, 9]
        assert bench.value("version_state", version="3", state="closed") is None

    on_bench(test)


def test_stopping_leaves_leases_good(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with lease(bench) as held:
            await bench.follower.stop()
            assert held.leases == 1
            with lease(bench) as other:
                assert other is held
        assert held.leases == 0

    on_bench(test)
