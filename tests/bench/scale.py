"""How many people a layout carries and what a thousand photos cost: discrete events, with times that were measured.

    PYTHONPATH=.:tests:export:tests/bench python tests/bench/scale.py [--people 1000] [--core-hour 0.04 ...]
    … scale.py --measure times.json            # fills in the times of this machine, with the real network
    … scale.py --times times.json              # and simulates with them

A person uploads a photo, waits for its analysis, drags a light over it a few times, relights it at full size, downloads
that, and goes away for a while. While they drag, the page asks for one preview after the other; with light in the
browser it asks for the maps once. What is simulated: a process's event loop, the cores of its machine, its queue and
its memory of prepared pictures, the link of the machine, the proxy of the cluster, and the store with its latencies and
its most requests a second. What is not: faults, and threads that share one picture (but for an analysis, a piece of
work takes one core).
"""

import argparse
import dataclasses
import json
import random
from collections import Counter, OrderedDict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from discrete import Simulation, Station


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one core, and bytes, of a photo of 12 megapixels. `--measure` fills them in."""

    upload: float = 0.36  # decode, encode, store
    analysis: float = 1.6
    analysis_threads: int = 4  # that it spreads over; with more it hardly gets faster
    prepare: float = 0.44  # what a first preview takes more than the next
    preview: float = 0.018
    relight: float = 0.62
    maps: float = 0.006
    download: float = 0.018
    request: float = 0.0006  # the event loop, for any request
    proxy: float = 0.008  # Ray Serve's proxy, for any request; tests/cluster.py measures it
    replica: float = 0.0065  # what Ray Serve adds in the replica
    photo_bytes: float = 1.4e6
    input_bytes: float = 10e6
    relit_bytes: float = 12e6
    preview_bytes: float = 40e3
    maps_bytes: float = 1.2e6
    geometry_bytes: float = 1.4e6
    prepared_bytes: float = 32e6  # in memory, of a photo that is dragged over


@dataclasses.dataclass(frozen=True)
class Store:
    """An object store: seconds of a request, most requests a second, and how many requests each action makes."""

    get_seconds: float = 0.015
    put_seconds: float = 0.035
    gets_a_second: float = 5500.0
    puts_a_second: float = 3500.0
    upload: tuple = (1, 5)  # (GET and its like, PUT and LIST), as bench_bucket.py counts them
    analysis: tuple = (1, 10)
    preview: tuple = (2, 1)  # of a stream, as pages drag
    prepare: tuple = (2, 0)
    relight: tuple = (1, 2)
    maps: tuple = (3, 0)
    download: tuple = (2, 0)
    waiting_a_second: float = 1.0  # GETs of whoever waits for an analysis made elsewhere


@dataclasses.dataclass(frozen=True)
class Prices:
    """In one currency; the defaults are round figures in US dollars near the list prices of large providers."""

    core_hour: float = 0.04
    thousand_puts: float = 0.005
    thousand_gets: float = 0.0004
    egress_gb: float = 0.09
    stored_gb_month: float = 0.023


@dataclasses.dataclass(frozen=True)
class Habits:
    """What people do. Seconds; `idle`, `pause` and `drag` are means."""

    drags: int = 4
    drag: float = 5.0
    pause: float = 5.0
    idle: float = 120.0
    round_trip: float = 0.04
    frame: float = 1 / 60  # no page asks for pictures faster
    kept_hours: float = 24.0  # until a job expires


@dataclasses.dataclass(frozen=True)
class Layout:
    """Machines with so many cores and processes each; analysts: cores of their own that analyse, 0: the servers do."""

    name: str
    machines: int = 1
    cores: int = 8
    processes: int = 1
    analysts: int = 0
    bucket: bool = False  # jobs lie in an object store
    ray: bool = False
    queue: int = 32
    cache_bytes: float = 512 * 2**20
    link_bytes: float = 5e9 / 8  # a second
    direct: bool = False  # downloads come from the store itself
    sticky: bool = True  # who drags keeps the process: connections are kept, or a proxy goes by the client's address

    @property
    def all_cores(self):
        """What is paid for. Ray's proxies take one core on every machine."""
        return self.machines * (self.cores + self.ray) + self.analysts


# What has to hold: seconds from the request to the answer that 95 of 100 stay below, network apart.
GOALS = {"preview": 0.25, "ready": 15.0, "relight": 15.0, "maps": 2.0}
MOST_REFUSED = 0.001
RETRY_AFTER = 1.0


class Refused(Exception):
    """503: the queue is full."""


class Process:
    """One server process: an event loop, a bounded queue, and pictures kept ready."""

    def __init__(self, world, machine):
        self.world, self.machine = world, machine
        self.loop = Station(world.simulation, "event loop", 1)
        self.analysis = Station(world.simulation, "analysis", 1)
        self.pending = self.analyses = 0
        self._kept, self._room = OrderedDict(), int(world.layout.cache_bytes // world.times.prepared_bytes)

    def holds(self, job):
        """Is the picture of this job ready here? From now on it is."""
        held = job in self._kept
        self._kept[job] = True
        self._kept.move_to_end(job)
        while len(self._kept) > max(self._room, 1):
            self._kept.popitem(last=False)
        return held


class Machine:
    """Cores and a link that its processes share."""

    def __init__(self, world):
        self.cores = Station(world.simulation, "cores", world.layout.cores)
        self.link = Station(world.simulation, "link", 1)
        self.proxy = Station(world.simulation, "proxy", 1)
        self.processes = [Process(world, self) for _ in range(world.layout.processes)]


class World:
    """A layout and the people who use it."""

    def __init__(self, layout, people, live, times=None, store=None, habits=None, seed=1):
        self.layout, self.people, self.live = layout, people, live
        self.times, self.store, self.habits = times or Times(), store or Store(), habits or Habits()
        self.random, self.simulation = random.Random(seed), Simulation()
        self.machines = [Machine(self) for _ in range(layout.machines)]
        self.processes = [p for m in self.machines for p in m.processes]
        self.analysts = Station(self.simulation, "analysis", layout.analysts) if layout.analysts else None
        self.gets, self.puts = Station(self.simulation, "store, GET", 1), Station(self.simulation, "store, PUT", 1)
        self.count, self.took = Counter(), {}
        self._jobs = 0

    def stations(self):
        """All that people can wait at."""
        found = [self.gets, self.puts, *([self.analysts] if self.analysts else [])]
        for m in self.machines:
            found += [m.cores, m.link, m.proxy, *(p.loop for p in m.processes), *(p.analysis for p in m.processes)]
        return found

    def run(self, seconds, settle):
        """Let people do what they do; what is counted begins after `settle` seconds."""
        for _ in range(self.people):
            self.simulation.start(self._person(), self.random.uniform(0, 2 * self.habits.idle))
        self.simulation.run(settle)
        self.count, self.took = Counter(), {}
        for station in self.stations():
            station.reset()
        self.simulation.run(settle + seconds)
        return self

    # -- what people do

    def _around(self, mean):
        return self.random.expovariate(1 / mean) if mean else 0.0

    def _work(self, mean):
        return self.random.gammavariate(4, mean / 4)  # photos differ: half its mean either way

    def _person(self):
        while True:
            yield from self._visit()
            yield self._around(self.habits.idle)

    def _visit(self):
        habits, times = self.habits, self.times
        self._jobs += 1
        job = self._jobs
        began = self.simulation.now
        yield from self._until_taken(lambda: self._upload(job))
        self._note("ready", began)
        if self.live:
            yield from self._until_taken(lambda: self._ask("maps", times.maps, times.maps_bytes))
        for _ in range(habits.drags):
            yield self._around(habits.pause)
            yield from self._drag(job)
        yield from self._until_taken(lambda: self._ask("relight", times.relight, inside=times.relit_bytes))
        yield from self._until_taken(lambda: self._ask("download", times.download, times.relit_bytes))
        self.count["photos"] += 1

    def _drag(self, job):
        end = self.simulation.now + self._around(self.habits.drag)
        if self.live:
            yield end - self.simulation.now
            return
        while self.simulation.now < end:
            asked = self.simulation.now
            yield from self._until_taken(lambda: self._preview(job))
            yield max(self.habits.frame - (self.simulation.now - asked), 0.0)
        self.count["drags"] += 1

    def _until_taken(self, request):
        while True:
            try:
                self.count["requests"] += 1
                yield from request()
                return
            except Refused:
                self.count["refused"] += 1
                yield RETRY_AFTER

    def _preview(self, job):
        process = self._some_process(job)
        held = process.holds(job)
        self.count["misses"] += not held
        seconds = self.times.preview + (0 if held else self.times.prepare)
        kinds = ("preview",) if held else ("preview", "prepare")
        yield from self._ask("preview", seconds, self.times.preview_bytes, process=process, kinds=kinds)

    def _upload(self, job):
        process = self._some_process()
        if process.analyses > self.layout.queue and not self.analysts:
            yield self.habits.round_trip
            raise Refused
        process.analyses += 1
        try:
            yield from self._ask("upload", self.times.upload, inside=self.times.input_bytes, process=process)
            began = self.simulation.now
            yield from self._analyse(process)
        finally:
            process.analyses -= 1
        if self.layout.bucket:
            polls = self.store.waiting_a_second * (self.simulation.now - began)
            self.count["gets"] += polls
            yield from self.gets.serve(polls / self.store.gets_a_second)

    def _analyse(self, process):
        seconds = self._work(self.times.analysis)
        yield from self._reach("analysis")
        if self.analysts:
            yield from self.analysts.serve(seconds)
        else:
            yield from process.analysis.enter()
            cores, share = process.machine.cores, min(self.layout.cores, self.times.analysis_threads)
            for _ in range(share - 1):
                self.simulation.start(cores.serve(seconds / share))
            yield 0.0  # this part is the last in line, and so the last that is done
            yield from cores.serve(seconds / share)
            process.analysis.leave()

    def _some_process(self, job=None):
        if job is not None and self.layout.sticky:
            return self.processes[job % len(self.processes)]
        return self.random.choice(self.processes)

    def _ask(self, name, seconds, egress=0.0, inside=0.0, process=None, kinds=None):
        """One request: the proxy, the event loop, the store, a core, and the link on the way back.

        egress: bytes to the person; inside: bytes to the store.
        """
        layout, times = self.layout, self.times
        process = process or self._some_process()
        machine = process.machine
        yield self.habits.round_trip
        began = self.simulation.now
        if layout.ray:
            yield from self.random.choice(self.machines).proxy.serve(times.proxy)
        yield from process.loop.serve(times.request + times.replica * layout.ray)
        if process.pending >= layout.cores + layout.queue:
            raise Refused
        process.pending += 1
        for kind in kinds or (name,):
            yield from self._reach(kind)
        yield from machine.cores.serve(self._work(seconds))
        process.pending -= 1
        self.count["egress"] += egress
        through = inside * layout.bucket + egress * (not (layout.direct and name == "download"))
        yield from machine.link.serve(through / layout.link_bytes)
        self._note(name, began)

    def _reach(self, kind):
        """The requests to the store that an action makes, one after the other."""
        if not self.layout.bucket:
            return
        gets, puts = getattr(self.store, kind)
        self.count["gets"] += gets
        self.count["puts"] += puts
        if gets:
            yield from self.gets.serve(gets / self.store.gets_a_second)
        if puts:
            yield from self.puts.serve(puts / self.store.puts_a_second)
        yield gets * self.store.get_seconds + puts * self.store.put_seconds

    def _note(self, name, began):
        self.took.setdefault(name, []).append(self.simulation.now - began)


def quantile(values, share):
    """That quantile of a list, 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def figures(world, seconds, prices):
    """What a run that lasted so many seconds came to, by name."""
    count, layout, times = world.count, world.layout, world.times
    photos = max(count["photos"], 1)
    busiest = {}
    for station in world.stations():
        busiest[station.name] = max(busiest.get(station.name, 0.0), station.utilisation())
    thousand = 1000 / photos
    stored = times.input_bytes + times.relit_bytes + times.geometry_bytes + times.maps_bytes
    cost = {
        "cores": layout.all_cores * seconds / 3600 * prices.core_hour * thousand,
        "store": (count["puts"] * prices.thousand_puts + count["gets"] * prices.thousand_gets) / 1000 * thousand
        + stored * 1e-6 * world.habits.kept_hours / 730 * prices.stored_gb_month * layout.bucket,
        "egress": count["egress"] / 1e9 * prices.egress_gb * thousand,
    }
    missed = [name for name, goal in GOALS.items() if quantile(world.took.get(name, []), 0.95) > goal]
    if count["refused"] > MOST_REFUSED * count["requests"]:
        missed.append("refused")
    if count["photos"] == 0:
        missed.append("nothing is finished")
    return {
        "layout": layout.name,
        "people": world.people,
        "live": world.live,
        "cores": layout.all_cores,
        "photos_an_hour": count["photos"] * 3600 / seconds,
        "p50": {k: quantile(v, 0.5) for k, v in world.took.items()},
        "p95": {k: quantile(v, 0.95) for k, v in world.took.items()},
        "pictures_a_second": len(world.took.get("preview", [])) / max(count["drags"] * world.habits.drag, 1e-9),
        "misses": count["misses"] / max(len(world.took.get("preview", [])), 1),
        "refused": count["refused"] / max(count["requests"], 1),
        "busiest": busiest,
        "gets_a_second": count["gets"] / seconds,
        "puts_a_second": count["puts"] / seconds,
        "store_requests_a_photo": (count["gets"] + count["puts"]) / photos,
        "egress_gb_a_thousand": count["egress"] / 1e9 * thousand,
        "cost_a_thousand": cost,
        "missed": missed,
    }


def breaks(found):
    """In words: what is missed, and where people wait."""
    if not found["missed"]:
        return "holds"
    where, share = max(found["busiest"].items(), key=lambda pair: pair[1])
    more = f", {100 * found['misses']:.0f} % of previews prepared anew" if found["misses"] > 0.02 else ""
    return f"{', '.join(found['missed'])}: {where} {100 * share:.0f} % busy{more}"


def simulate(layout, people, live, options):
    """Figures of one run, with the times, prices and habits of the command line."""
    world = World(layout, people, live, options.times, options.store, options.habits, options.seed)
    world.run(options.seconds, options.settle)
    return figures(world, options.seconds, options.prices)


def fewest(layouts, people, live, options):
    """Figures of the smallest of these layouts, told by increasing size, that carries so many people; else the last."""
    low, high = 0, len(layouts) - 1
    best = simulate(layouts[high], people, live, options)
    while low < high and not best["missed"]:
        middle = (low + high) // 2
        found = simulate(layouts[middle], people, live, options)
        if found["missed"]:
            low = middle + 1
        else:
            best, high = found, middle
    return best


def most(layout, live, options, limit=20000):
    """(the most people, within a tenth, that a layout carries, figures of the first number that is too many)."""
    low, high, broken = 0, 10, None
    while high <= limit:
        found = simulate(layout, high, live, options)
        if found["missed"]:
            broken = found
            break
        low, high = high, 2 * high
    while broken and high - low > max(high // 10, 1):
        middle = (low + high) // 2
        found = simulate(layout, middle, live, options)
        if found["missed"]:
            high, broken = middle, found
        else:
            low = middle
    return low, broken


def workers(cores):
    """One machine with a process for each core."""
    return Layout(f"{cores} workers", cores=cores, processes=cores)


def machines(count, cores=8, **more):
    """Machines that work over one bucket, each with a process for each core, behind a balancer."""
    return Layout(f"{count} machines", count, cores, cores, bucket=True, **more)


def cluster(count, cores=8, **more):
    """The same on Ray Serve; of each machine's cores, a third analyses."""
    analysts = cores // 3
    inside = {"analysts": count * analysts, "bucket": True, "ray": True, **more}
    return Layout(f"{count} with Ray", count, cores - analysts, cores - analysts, **inside)


def shapes():
    """Layouts of which the limit is asked."""
    one = Layout("1 process", cores=8)
    return [one, workers(8), machines(4), cluster(4), dataclasses.replace(machines(4), name="4, any", sticky=False)]


def ladders():
    """Layouts of each kind by increasing size."""
    counts = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
    return [
        [workers(cores) for cores in (4, 8, 16, 24, 32, 48, 64, 96, 128)],
        [machines(count) for count in counts],
        [cluster(count) for count in counts],
    ]


LIT_BY = (False, True)  # by the page?
COLUMNS = {  # of the table; p95 is of seconds, costs are of a thousand photos
    "layout": (22, "s", lambda f: f["layout"]),
    "lit by": (6, "s", lambda f: "page" if f["live"] else "server"),
    "cores": (5, "d", lambda f: f["cores"]),
    "photos/h": (8, ".0f", lambda f: f["photos_an_hour"]),
    "preview": (7, ".2f", lambda f: f["p95"].get("preview", 0.0)),
    "ready": (6, ".1f", lambda f: f["p95"].get("ready", 0.0)),
    "relight": (7, ".1f", lambda f: f["p95"].get("relight", 0.0)),
    "GET/s": (5, ".0f", lambda f: f["gets_a_second"]),
    "PUT/s": (5, ".0f", lambda f: f["puts_a_second"]),
    "GB": (5, ".1f", lambda f: f["egress_gb_a_thousand"]),
    "cores $": (7, ".2f", lambda f: f["cost_a_thousand"]["cores"]),
    "store $": (7, ".2f", lambda f: f["cost_a_thousand"]["store"]),
    "egress $": (8, ".2f", lambda f: f["cost_a_thousand"]["egress"]),
    "": (0, "s", breaks),
}
HEAD = " ".join(f"{title:>{width}s}" for title, (width, _, _) in COLUMNS.items())


def row(found):
    """A line of the table."""
    return " ".join(f"{value(found):>{width}{kind}}" for width, kind, value in COLUMNS.values())


def arguments():
    """The command line; every field of Times, Store, Prices and Habits is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=40, help="that are counted")
    parser.add_argument("--settle", type=float, default=200, help="that pass before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="that simulate at a time")
    parser.add_argument("--times", type=Path, help="JSON as --measure writes it")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure the times of this machine, and stop")
    parser.add_argument("--json", type=Path, help="leave all figures here")
    for kind in (Times, Store, Prices, Habits):
        for field in dataclasses.fields(kind):
            if isinstance(field.default, tuple):
                parser.add_argument(f"--store-{field.name}", type=float, nargs=2, metavar=("GET", "PUT"))
            else:
                parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), metavar="N")
    options = parser.parse_args()
    measured = json.loads(options.times.read_text()) if options.times else {}

    def made(kind, prefix=""):
        given = {
            f.name: getattr(options, (prefix if isinstance(f.default, tuple) else "") + f.name)
            for f in dataclasses.fields(kind)
        }
        return dataclasses.replace(
            kind(**(measured if kind is Times else {})), **{k: v for k, v in given.items() if v is not None}
        )

    options.times, options.store = made(Times), made(Store, "store_")
    options.prices, options.habits = made(Prices), made(Habits)
    return options


def main():
    """Measure, or simulate and print."""
    options = arguments()
    if options.measure:
        from measure_times import measure

        found = dataclasses.replace(options.times, **measure())
        options.measure.write_text(json.dumps(dataclasses.asdict(found), indent=1))
        print(options.measure.read_text())
        return
    rows = []
    with ProcessPoolExecutor(options.processes) as pool:
        fitting = [
            pool.submit(fewest, ladder, options.people, live, options) for live in LIT_BY for ladder in ladders()
        ]
        limits = [(layout, live, pool.submit(most, layout, live, options)) for layout in shapes() for live in LIT_BY]
        print(f"{options.people} people, the smallest of each kind that carries them\n{HEAD}", flush=True)
        for future in fitting:
            rows.append(future.result())
            print(row(rows[-1]), flush=True)
        print("\nhow many people a layout carries, and what breaks first with more", flush=True)
        for layout, live, future in limits:
            people, broken = future.result()
            rows.append({"layout": layout.name, "carries": people, "live": live, "then": broken})
            where, why = "page" if live else "server", breaks(broken) if broken else ""
            print(f"{layout.name:>22s} {where:>6s} {layout.all_cores:5d} {people:6d}  {why}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
