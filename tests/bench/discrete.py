"""Discrete events: processes that are generators, and stations at which they wait for one of a number of servers.

A process yields the seconds that pass, or the station in whose line it stands. Time is simulated, and in seconds.
"""

import heapq
import itertools
from collections import deque


class Simulation:
    """A clock, and what happens when."""

    def __init__(self):
        self.now = 0.0
        self._due, self._order = [], itertools.count()

    def start(self, process, after=0.0):
        """Let a process begin, or go on, after so many seconds."""
        heapq.heappush(self._due, (self.now + after, next(self._order), process))

    def run(self, until=float("inf")):
        """Let time pass until that moment, or until nothing is left to do."""
        while self._due and self._due[0][0] <= until:
            self.now, _, process = heapq.heappop(self._due)
            step = next(process, None)
            if isinstance(step, Station):
                step.line.append(process)
            elif step is not None:
                self.start(process, step)
        self.now = max(self.now, until) if until < float("inf") else self.now


class Station:
    """So many equal servers and one line, first come first served. It counts what somebody who looks on would."""

    def __init__(self, simulation, name, servers):
        self.simulation, self.name, self.servers = simulation, name, servers
        self.line, self.free = deque(), servers
        self.present = 0  # waiting or served
        self.reset()

    def reset(self):
        """Forget what was counted, but nobody who is here."""
        self.came = self.left = 0
        self.first = self.present
        self.busy = self.area = 0.0  # servers x seconds, customers x seconds
        self.waits = []
        self._since = self._begun = self.simulation.now

    def _account(self):
        passed = self.simulation.now - self._since
        self.busy += passed * (self.servers - self.free)
        self.area += passed * self.present
        self._since = self.simulation.now

    def enter(self):
        """A step of a process, `yield from station.enter()`: it waits for a server, and keeps it until it leaves."""
        self._account()
        self.came += 1
        self.present += 1
        came = self.simulation.now
        if self.free:
            self.free -= 1
        else:
            yield self  # whoever leaves hands its server over
        self.waits.append(self.simulation.now - came)

    def leave(self):
        """Give the server to whoever waits longest."""
        self._account()
        self.left += 1
        self.present -= 1
        if self.line:
            self.simulation.start(self.line.popleft())
        else:
            self.free += 1

    def serve(self, seconds):
        """A step of a process: it waits for a server, and keeps it that long."""
        yield from self.enter()
        yield seconds
        self.leave()

    def utilisation(self):
        """The share of its servers that was busy since the last reset."""
        self._account()
        return self.busy / (self.servers * max(self._since - self._begun, 1e-12))

    def mean_present(self):
        """The mean number of customers here, waiting or served, since the last reset."""
        self._account()
        return self.area / max(self._since - self._begun, 1e-12)


def erlang_c(rate, seconds, servers):
    """M/M/c: the probability that a customer waits, and the mean wait in seconds (Erlang 1917).

    rate: arrivals a second; seconds: a mean service; rate x seconds must be below the number of servers.
    """
    load = rate * seconds
    blocked = 1.0
    for k in range(1, servers + 1):  # Erlang's B by its recursion, which nothing overflows
        blocked = load * blocked / (k + load * blocked)
    waits = blocked / (1 - load / servers * (1 - blocked))
    return waits, waits * seconds / (servers - load)
