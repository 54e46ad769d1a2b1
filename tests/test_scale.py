"""The simulation of tests/bench/scale.py: what queueing theory says of it, and that nobody gets lost."""

import random

import pytest
from discrete import Simulation, Station, erlang_c
from scale import GOALS, Habits, Layout, Prices, Store, Times, World, figures

SETTLE, SECONDS = 120, 120


def queue(rate, servers, customers, seed):
    """A station that strangers come to by chance, of a mean service of one second; and the sum of their stays."""
    simulation, rng = Simulation(), random.Random(seed)
    station, stays = Station(simulation, "desk", servers), []

    def customer():
        came = simulation.now
        yield from station.serve(rng.expovariate(1))
        stays.append(simulation.now - came)

    def door():
        for _ in range(customers):
            yield rng.expovariate(rate)
            simulation.start(customer())

    simulation.start(door())
    simulation.run()
    return station, stays


@pytest.mark.parametrize("rate, servers", [(0.6, 1), (3.0, 4), (13.5, 16)])
def test_waiting_is_what_erlang_says(rate, servers):
    """M/M/c. Waits of one line depend on each other, so the error is estimated from runs that do not."""
    runs = [queue(rate, servers, 4000, seed)[0].waits for seed in range(8)]
    means = [sum(waits) / len(waits) for waits in runs]
    shares = [sum(w > 0 for w in waits) / len(waits) for waits in runs]
    share, wait = erlang_c(rate, 1.0, servers)
    for found, expected in ((means, wait), (shares, share)):
        mean = sum(found) / 8
        error = (sum((m - mean) ** 2 for m in found) / 7 / 8) ** 0.5
        assert abs(mean - expected) < 4.8 * error  # Student's t, 7 degrees of freedom: 1 of 500 runs by chance
        assert error < 0.15 * expected  # and it says something


def test_erlang_of_one_server_is_the_textbook_one():
    """M/M/1: whoever comes waits with the probability of the load, and load / (1 - load) services on average."""
    assert erlang_c(0.4, 2.0, 1) == pytest.approx((0.8, 0.8 * 2 / (1 - 0.8)))


def test_little():
    """The customers present, counted by the clock, are the arrivals a second times the stay, counted by customer."""
    station, stays = queue(2.4, 3, 5000, 5)
    assert station.mean_present() * station.simulation.now == pytest.approx(sum(stays), rel=1e-9)
    assert (station.came, station.left, station.present) == (5000, 5000, 0)


def world(people=60, live=False, **layout):
    """A small layout under a load that it feels."""
    return World(Layout("small", **{"cores": 4, **layout}), people, live, seed=3)


@pytest.mark.parametrize("clustered", [False, True])
def test_nobody_is_lost(clustered):
    """At every station: who was there or came has left or is there still; and no server works more than always."""
    crowded = world(machines=2, bucket=clustered, ray=clustered, analysts=2 * clustered, queue=4).run(SECONDS, SETTLE)
    assert crowded.count["photos"] > 0
    for station in crowded.stations():
        assert station.first + station.came == station.left + station.present, station.name
        assert 0 <= station.utilisation() <= 1 + 1e-9
        assert station.present == len(station.line) + station.servers - station.free


def test_work_is_conserved():
    """The cores are busy for as long as the work that was done on them takes, whatever the order."""
    idle = Habits(drags=0)
    calm = World(Layout("wide", cores=64, queue=1000), 40, True, Times(), habits=idle, seed=2).run(1200, SETTLE)
    t, photos = calm.times, calm.count["photos"]
    work = photos * (t.upload + t.analysis + t.maps + t.relight + t.download)
    busy = sum(m.cores.busy for m in calm.machines)
    assert photos > 100
    assert busy == pytest.approx(work, rel=4 * 0.5 / photos**0.5)  # each differs by half its mean


def test_the_page_s_own_light_asks_for_no_previews():
    by_server, by_page = (figures(world(live=live).run(SECONDS, SETTLE), SECONDS, Prices()) for live in (False, True))
    assert "preview" in by_server["p95"] and "preview" not in by_page["p95"]
    assert by_page["busiest"]["cores"] < by_server["busiest"]["cores"]


def test_a_queue_that_is_full_refuses_and_people_come_back():
    crowded = world(people=400, cores=1, queue=2).run(SECONDS, SETTLE)
    found = figures(crowded, SECONDS, Prices())
    assert found["refused"] > 0.01 and "refused" in found["missed"]
    assert crowded.count["photos"] > 0  # whoever was refused asks again


def test_memory_too_small_for_who_drags_is_prepared_again():
    few, many = (world(people=100, cores=16, cache_bytes=b).run(SECONDS, SETTLE) for b in (2**40, 2**26))
    assert figures(many, SECONDS, Prices())["misses"] > 2 * figures(few, SECONDS, Prices())["misses"]


def test_the_bill():
    """Cores by the hour, requests by the thousand, bytes that leave: by hand."""
    small = world(bucket=True, ray=True, analysts=1).run(SECONDS, SETTLE)
    prices = Prices(core_hour=3600, thousand_puts=0, thousand_gets=0, egress_gb=0, stored_gb_month=0)
    found = figures(small, SECONDS, prices)
    assert sum(found["cost_a_thousand"].values()) == pytest.approx((4 + 1 + 1) * SECONDS * 1000 / small.count["photos"])
    asked = figures(small, SECONDS, Prices(0, 1000, 1000, 0, 0))["cost_a_thousand"]["store"]
    assert asked == pytest.approx(found["store_requests_a_photo"] * 1000)


def test_every_action_reaches_the_store_as_often_as_it_says():
    store = Store(**dict.fromkeys(("upload", "analysis", "relight", "maps", "download"), (1, 1)), waiting_a_second=0)
    calm = World(Layout("c", cores=64, analysts=64, bucket=True, queue=1000), 40, True, store=store, seed=4)
    calm.run(600, SETTLE)
    assert calm.count["gets"] == calm.count["puts"]
    assert calm.count["puts"] == pytest.approx(5 * calm.count["photos"], rel=0.15)  # visits begun and not yet ended


def test_goals_are_named_as_the_figures_are():
    small = world(live=True).run(SECONDS, SETTLE)
    seen = set(small.took) | set(world().run(SECONDS, SETTLE).took)
    assert set(GOALS) <= seen
