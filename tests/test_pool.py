"""The pool of threads, work that is set aside, and the cache: bounded, shared, made once."""

import threading
import time

import numpy as np
import pytest

from server import errors
from server.jobs.cache import Cache
from server.jobs.pool import Pool, WatchdogThread


def test_what_many_want_at_once_is_made_once():
    cache, made, begun = Cache(1000), [], threading.Event()

    def make():
        made.append(1)
        begun.set()
        time.sleep(0.3)
        return np.zeros(10, np.uint8)

    got = []
    threads = [threading.Thread(target=lambda: got.append(cache.get(("job", 1), make))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(made) == 1 and all(v is got[0] for v in got)


def test_the_line_is_as_long_as_it_was_made():
    pool, gate = Pool("test", 1, 2), threading.Event()
    for _ in range(3):
        pool.submit(gate.wait)
    with pytest.raises(errors.Overloaded):
        pool.submit(gate.wait)
    gate.set()
    pool.close()
    assert pool.pending == 0


def test_pieces_of_work_share_the_threads():
    pool, gate, shares = Pool("test", 4, 0), threading.Barrier(3), []

    def work():
        gate.wait(10)
        shares.append(pool.threads_per_task())
        gate.wait(10)

    assert pool.threads_per_task() == 4
    for _ in range(2):
        pool.submit(work)
    gate.wait(10), gate.wait(10)
    pool.close()
    assert shares == [2, 2] and pool.threads_per_task() == 4


def test_work_knows_the_request_it_is_for():
    from server.web.middleware import request_id

    pool = Pool("test", 1, 0)
    token = request_id.set("mine")
    assert pool.submit(request_id.get).result(10) == "mine"
    request_id.reset(token)
    assert pool.submit(request_id.get).result(10) == "-"
    pool.close()


def test_after_work_that_hangs_comes_work_that_does_not():
    aside, gate, stop = WatchdogThread("test"), threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        aside.run(gate.wait, 0.1, stop)
    assert aside.run(lambda: 7, 10, stop) == 7
    gate.set()
