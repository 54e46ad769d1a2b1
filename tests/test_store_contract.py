"""One contract for every store: a folder, a bucket in memory, moto's S3 and a real one (SeaweedFS)."""

import io
import itertools
import json
import threading
import time
import uuid

import pytest
import s3
from filelock import Timeout

from server import errors
from server.jobs import backend as backends
from server.jobs import base as jobs
from server.jobs.base import JobFile
from server.jobs.bucket import NEW, Bucket, Conflict, check, connect
from server.jobs.record import ANALYSING, READY, Record, load_record, save_record
from server.jobs.usage import Quota
from server.settings import load

LEASE = 1.0  # seconds
KINDS = ["folder", "memory", "moto", "seaweed"]
BUCKETS = KINDS[1:]
SLOW = ["memory", "seaweed"]  # where a lease has to end first


class Place:
    """A store, and processes over it."""

    def __init__(self, kind, tmp_path, servers, monkeypatch):
        self.kind, self.settings = kind, load(jobs_dir=tmp_path / "jobs", lease_seconds=LEASE, job_ttl_seconds=100)
        self.opened = []
        if kind in ("moto", "seaweed"):
            self.port, bucket = servers(kind)
            for name, value in s3.environment(self.port).items():
                monkeypatch.setenv(name, value)
            self.settings = self.settings.model_copy(update={"store": f"s3://{bucket}/some/{uuid.uuid4().hex}"})
        self.bucket = None if kind == "folder" else connect(self.settings.store or "memory://")

    def process(self):
        """One more process."""
        if self.kind == "folder":
            made = backends.over_folder(self.settings.jobs_dir)
        elif self.kind == "memory":
            made = backends.over_bucket(self.bucket, self.settings)
        else:
            made = backends.open_backend(self.settings)
        self.opened.append(made)
        return made

    def kill(self, process):
        """As if by kill -9: no sign of life any more, nothing given back."""
        if self.kind == "folder":
            process.processes._alive.release()
        else:
            process.processes._closing.set()
            process.processes._thread.join()
        self.opened.remove(process)

    def paths(self):
        """What lies there."""
        if self.kind == "folder":
            root = self.settings.jobs_dir
            return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        return sorted(e.path for f in ("jobs", "analyses", "workers", "locks") for e in self.bucket.list(f))


def opened_place(*of):
    made = Place(*of)
    yield made
    for process in made.opened:
        process.processes.close()


@pytest.fixture(params=KINDS)
def place(request, tmp_path, servers, monkeypatch):
    yield from opened_place(request.param, tmp_path, servers, monkeypatch)


@pytest.fixture(params=BUCKETS)
def bucket_place(request, tmp_path, servers, monkeypatch):
    yield from opened_place(request.param, tmp_path, servers, monkeypatch)


@pytest.fixture(params=SLOW)
def slow_place(request, tmp_path, servers, monkeypatch):
    yield from opened_place(request.param, tmp_path, servers, monkeypatch)


def record_of(worker="w", **fields):
    return Record(job_id=str(uuid.uuid4()), width=8, height=6, key="ab12", worker=worker, **fields)


def new(store, data=b"picture", **fields):
    record = record_of(**fields)
    store.create(record.job_id, {JobFile.INPUT: data, JobFile.JOB: record.dump()})
    return record.job_id


def until(look, seconds=10):
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_a_job_from_its_first_to_its_last_day(place):
    store, other = place.process().store, place.process().store
    before = store.now()
    job = new(store)
    store.put(job, JobFile.RELIT, b"x" * 100_000)
    for s in (store, other):
        assert s.exists(job) and load_record(s, job).job_id == job
        assert s.get(job, JobFile.RELIT) == b"x" * 100_000 and s.get(job, JobFile.INPUT) == b"picture"
        assert s.names(job) == [JobFile.JOB, JobFile.INPUT, JobFile.RELIT]
        (entry,) = s.list()
        assert entry.job_id == job and entry.size >= 100_007 and before - 3 < entry.used < s.now() + 3
    with pytest.raises(errors.FileNotFound):
        other.get(job, JobFile.SHEET)
    store.discard(job, [JobFile.RELIT, JobFile.SHEET])
    assert load_record(other, job) and JobFile.RELIT not in other.names(job)
    store.delete(job)
    assert not other.exists(job) and list(other.list()) == [] and other.names(job) == []
    for call in (
        lambda s: s.get(job, JobFile.JOB),
        lambda s: s.put(job, JobFile.RELIT, b"late"),
        lambda s: s.put_written(job, JobFile.EXR, lambda path: None),
        lambda s: s.put_record(job, b"{}"),
        lambda s: s.delete(job),
        lambda s: s.touch(job),
    ):
        for s in (store, other):
            with pytest.raises(errors.JobNotFound):
                call(s)
    assert not [p for p in place.paths() if job in p]


def test_what_is_written_by_a_path_is_there_whole_or_not_at_all(place):
    store = place.process().store
    job = new(store)

    def write(path):
        with open(path, "r+b") as f:
            f.write(b"layers" * 50_000)

    store.put_written(job, JobFile.EXR, write)
    assert store.get(job, JobFile.EXR) == b"layers" * 50_000

    def fail(path):
        write(path)
        raise ValueError("half")

    with pytest.raises(ValueError):
        store.put_written(job, JobFile.EXR, fail)
    assert store.get(job, JobFile.EXR) == b"layers" * 50_000
    assert len([p for p in place.paths() if job in p]) == 3


def test_a_reader_that_has_begun_ends_with_the_bytes_it_began_with(place):
    store, other = place.process().store, place.process().store
    job = new(store)
    store.put(job, JobFile.RELIT, b"first" * 100_000)
    with store.open(job, JobFile.RELIT) as whole, other.open(job, JobFile.RELIT) as part:
        assert jobs.facts(whole).size == 500_000 and jobs.facts(whole).tag == jobs.facts(part).tag
        jobs.begin(whole, 0, 500_000)
        jobs.begin(part, 250_000, 100)
        other.put(job, JobFile.RELIT, b"second")
        with store.open(job, JobFile.JOB):  # as each request begins
            load_record(store, job)
        with store.open(job, JobFile.RELIT) as again:
            assert jobs.facts(again).tag != jobs.facts(whole).tag and again.read() == b"second"
        other.delete(job)
        assert whole.read(7) == b"firstfi" and whole.read() == b"rst" + b"first" * 99_998
        assert part.read(100) == b"first" * 20


def test_a_file_is_read_as_any_other(place):
    store = place.process().store
    job, data = new(store), bytes(range(256)) * 2000
    store.put(job, JobFile.GEOMETRY, data)
    with store.open(job, JobFile.GEOMETRY) as f:
        assert f.read(10) == data[:10] and f.seek(0) == 0 and f.read(1000) == data[:1000]
        assert f.seek(-5, io.SEEK_END) == len(data) - 5 and f.read() == data[-5:] and f.read(1) == b""
        f.seek(400_000)
        assert f.tell() == 400_000 and f.read(3) == data[400_000:400_003] and f.read() == data[400_003:]


def test_many_at_once_lose_nothing(place):
    """Files of one job, put by several threads of two processes: each is there in the end, and whole."""
    store, other = place.process().store, place.process().store
    job = new(store)
    names = [JobFile.DEPTH, JobFile.NORMALS, JobFile.ALBEDO, JobFile.SHADING, JobFile.SURFACE, JobFile.SHEET]
    faults = []

    def work(s, name):
        try:
            for k in range(3):
                s.put(job, name, f"{name.value} {k}".encode() * 1000)
        except Exception as exc:
            faults.append(repr(exc))

    threads = [threading.Thread(target=work, args=(s, n)) for s, n in zip(itertools.cycle((store, other)), names)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults
    load_record(store, job)
    for name in names:
        assert store.get(job, name) == f"{name.value} 2".encode() * 1000


def test_of_those_who_make_one_job_one_makes_it(place):
    store, other = place.process().store, place.process().store
    record = record_of()
    store.create(record.job_id, {JobFile.INPUT: b"one", JobFile.JOB: record.dump()})
    if place.kind != "folder":  # a folder's ids are random, and that is all
        with pytest.raises(errors.RelightError):
            other.create(record.job_id, {JobFile.INPUT: b"two", JobFile.JOB: record.dump()})
    assert other.get(record.job_id, JobFile.INPUT) == b"one"


def test_a_job_half_made_is_none_and_goes_with_its_maker(slow_place, monkeypatch):
    dying, living = slow_place.process(), slow_place.process()
    whole, record = new(living.store), record_of()
    real = Bucket.put

    def put(self, path, *more, **options):
        if path.endswith("index.json") and record.job_id in path:
            raise SystemExit  # as far as it got
        return real(self, path, *more, **options)

    monkeypatch.setattr(Bucket, "put", put)
    monkeypatch.setattr(Bucket, "delete", lambda self, paths: None)
    with pytest.raises(SystemExit):
        dying.store.create(record.job_id, {JobFile.INPUT: b"half", JobFile.JOB: record.dump()})
    monkeypatch.undo()
    assert [p for p in slow_place.paths() if record.job_id in p]
    assert not living.store.exists(record.job_id) and [e.job_id for e in living.store.list()] == [whole]
    living.store.clean()
    assert [p for p in slow_place.paths() if record.job_id in p], "its maker lives, and may be about to end it"
    slow_place.kill(dying)
    until(lambda: not living.processes.is_alive(dying.processes.worker))
    living.store.clean()
    assert not [p for p in slow_place.paths() if record.job_id in p] and living.store.exists(whole)
    assert f"workers/{dying.processes.worker}" not in slow_place.paths()


def test_objects_that_no_file_is_any_more_go(slow_place, monkeypatch):
    one, other = slow_place.process(), slow_place.process()
    job = new(one.store)
    for k in range(3):
        one.store.put(job, JobFile.RELIT, b"%d" % k)
    assert len([p for p in slow_place.paths() if "relit.png" in p]) == 3, "somebody may be about to read them"
    assert other.store.clean() == list(other.store.list())
    assert one.store.get(job, JobFile.RELIT) == b"2"
    slow_place.kill(one)
    until(lambda: not other.processes.is_alive(one.processes.worker))
    assert other.store.clean() == list(other.store.list())
    assert len([p for p in slow_place.paths() if "relit.png" in p]) == 1
    assert other.store.get(job, JobFile.RELIT) == b"2"


def test_using_a_job_keeps_it_young(place):
    store = place.process().store
    job = new(store)
    first = store.touch(job)
    assert abs(first - store.now()) < 3
    if place.kind == "folder":
        import os

        os.utime(store.root / job / "job.json", (first - 50, first - 50))
    else:
        store._grain = 0.5
        time.sleep(1.2)
    again = store.touch(job)
    assert again > first - 1 and abs(again - store.now()) < 3
    (entry,) = store.list()
    assert entry.used > first - 1


def test_a_job_that_was_used_meanwhile_does_not_expire(slow_place):
    """The sweep lists, is held up, and then deletes: not what another process has used since."""
    store, other = slow_place.process().store, slow_place.process().store
    job = new(store)
    (entry,) = store.list()
    time.sleep(1.1)  # S3 tells time in seconds
    other._grain = 0.5
    other.touch(job)
    with pytest.raises(errors.TakenOver):
        store.delete(job, entry.used)
    (entry,) = store.list()
    store.delete(job, entry.used)
    assert not other.exists(job)


def test_the_quota_takes_the_least_recently_used(place):
    one = place.process()
    settings = place.settings.model_copy(update={"jobs_quota_bytes": 250_000, "key_jobs": 2})
    gone = []

    def remove(job, used):
        gone.append(job)
        one.store.delete(job, used)

    quota = Quota(settings, one.store, one.processes, lambda job: False, remove)
    old = new(one.store, b"x" * 100_000)
    time.sleep(1.1 if place.kind in ("moto", "seaweed") else 0.05)
    young = new(one.store, b"x" * 100_000, owner="me")
    quota.make_room("me", 40_000, 1)
    assert gone == []
    quota.make_room("me", 100_000, 1)
    assert gone == [old] and one.store.exists(young)
    with pytest.raises(errors.StorageFull):
        quota.make_room("me", 260_000)
    new(one.store, owner="me")
    with pytest.raises(errors.StorageFull, match="key"):
        quota.make_room("me", 1, 1)


def test_notes_of_analyses_and_copies_of_their_files(place):
    store, other = place.process().store, place.process().store
    source, target = new(store), new(store)
    store.put(source, JobFile.GEOMETRY, b"geometry" * 1000)
    store.register("ab12", source)
    assert other.holders("ab12") == [source] and other.holders("ab34") == []
    other.link_files(source, target, [JobFile.GEOMETRY])
    with pytest.raises(errors.RelightError):
        other.link_files(source, target, [JobFile.SHEET])
    store.delete(source)
    assert other.get(target, JobFile.GEOMETRY) == b"geometry" * 1000, "a copy outlives what it was made of"
    store.clean()
    assert other.holders("ab12") == []
    store.register("ab12", target)
    store.unregister("ab12", target)
    assert other.holders("ab12") == []


def test_what_is_somebody_elses_stays(bucket_place):
    """Objects that are not ours, beside ours and within our jobs: never read, counted, or deleted."""
    store = bucket_place.process().store
    job, stranger = new(store), str(uuid.uuid4())
    theirs = [
        "readme.txt",
        "jobs/readme.txt",
        f"jobs/{job}/thesis.txt",
        f"jobs/{job}/relit.png/holiday",
        f"jobs/{job}/thesis.txt/{'0' * 32}-{'0' * 16}",
        f"jobs/{stranger}/thesis/index.json",
        f"jobs/{stranger.upper()}/index.json",
        "jobs/../index.json".replace("..", "%2e%2e"),
        "analyses/readme",
        "analyses/ab12/readme",
        "workers/readme",
        "metrics/readme",
    ]
    for path in theirs:
        bucket_place.bucket.put(path, b"precious" * 1000)
    assert [e.job_id for e in store.list()] == [job] and next(store.list()).size < 8000
    assert store.holders("ab12") == [] and not store.exists(stranger)
    store.clean()
    store.delete(job)
    store.clean()
    assert all(bucket_place.bucket.get(path) == b"precious" * 1000 for path in theirs)


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff\xfe", b'{"format": 1, "record": "{}", "files": {"../x": 1}}'])
def test_an_index_that_is_damaged_is_no_job(bucket_place, text):
    store = bucket_place.process().store
    job, whole = new(store), new(store)
    bucket_place.bucket.put(f"jobs/{job}/index.json", text)
    for call in (store.get, store.open):
        with pytest.raises(errors.JobNotFound):
            call(job, JobFile.JOB)
        load_record(store, whole)
    assert store.clean() == list(store.list())
    assert {e.job_id for e in store.list()} == {job, whole}  # the sweep finds it, and takes it away
    store.delete(job)
    assert {e.job_id for e in store.list()} == {whole}


def test_an_index_never_leads_out_of_its_job(bucket_place):
    store = bucket_place.process().store
    mine, theirs = new(store), new(store, b"not for you")
    found = bucket_place.bucket.find(f"jobs/{mine}/index.json")
    index = json.loads(found.data)
    index["files"]["input.png"]["object"] = f"../../{theirs}/input.png"
    bucket_place.bucket.put(f"jobs/{mine}/index.json", json.dumps(index).encode())
    with pytest.raises(errors.JobNotFound):
        store.get(mine, JobFile.JOB)


# -- turns


def test_a_turn_is_had_by_one_at_a_time(place):
    one, other = place.process(), place.process()
    counter = {"inside": 0, "most": 0, "turns": 0}

    def work(processes):
        for _ in range(3):
            with processes.analysis_lock("ab12"):
                counter["inside"] += 1
                counter["most"] = max(counter["most"], counter["inside"])
                time.sleep(0.01)
                counter["turns"] += 1
                counter["inside"] -= 1

    threads = [threading.Thread(target=work, args=(p.processes,)) for p in (one, other, one)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert counter == {"inside": 0, "most": 1, "turns": 9}
    with one.processes.sweep_lock(1):
        with pytest.raises(Timeout):
            other.processes.sweep_lock(0).acquire()
        with pytest.raises(Timeout):
            one.processes.sweep_lock(0.05).acquire()
        with other.processes.room_lock(1):
            pass
    with other.processes.sweep_lock(5):
        pass


def test_what_is_read_in_a_turn_is_what_the_last_one_left(place):
    """Two processes count in a file of a job, each time by reading it and writing it anew."""
    stores = [place.process() for _ in range(2)]
    job = new(stores[0].store)
    stores[0].store.put(job, JobFile.MASKS, b"0")

    def work(made):
        for _ in range(4):
            load_record(made.store, job)  # as each request begins
            with made.processes.room_lock(30):
                count = int(made.store.get(job, JobFile.MASKS))
                made.store.put(job, JobFile.MASKS, b"%d" % (count + 1))

    threads = [threading.Thread(target=work, args=(made,)) for made in stores * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    load_record(stores[0].store, job)
    assert stores[0].store.get(job, JobFile.MASKS) == b"16"


def test_the_turn_and_the_work_of_the_dead_are_taken_up(place):
    dying, living = place.process(), place.process()
    dying.processes.sweep_lock(1).acquire()
    turn = dying.processes.analysis_lock("ab12")
    turn.acquire()
    if place.kind == "folder":
        turn.release()  # the system drops the locks of a dead process
    assert living.processes.is_alive(dying.processes.worker)
    place.kill(dying)
    start = time.monotonic()
    with living.processes.analysis_lock("ab12"):
        waited = time.monotonic() - start
    assert not living.processes.is_alive(dying.processes.worker)
    assert place.kind == "folder" or waited > LEASE / 2, "it was taken for dead at once"


def test_one_that_was_held_up_writes_nothing_over_its_successor(slow_place):
    """A process sleeps longer than its lease, and its analysis is made by another. Its own comes to nothing."""
    paused, living = slow_place.process(), slow_place.process()
    job = new(paused.store, worker=paused.processes.worker, state=ANALYSING, attempts=1)
    mine = load_record(paused.store, job)
    slow_place.kill(paused)  # it sleeps: it gives no sign of life, and knows nothing of it
    until(lambda: not living.processes.is_alive(paused.processes.worker))
    theirs = load_record(living.store, job)
    theirs.worker = living.processes.worker
    save_record(living.store, theirs)
    mine.stage = "storing"
    with pytest.raises(errors.TakenOver):
        save_record(paused.store, mine)
    living.store.put(job, JobFile.GEOMETRY, b"theirs", theirs.held)
    with pytest.raises(errors.TakenOver):
        paused.store.put(job, JobFile.GEOMETRY, b"mine", mine.held)
    paused.store.discard(job, [JobFile.GEOMETRY], mine.held)
    assert living.store.get(job, JobFile.GEOMETRY) == b"theirs"
    theirs.attempts, theirs.state = 2, READY
    save_record(living.store, theirs)
    with pytest.raises(errors.TakenOver):
        save_record(paused.store, mine)
    assert load_record(paused.store, job).state == READY
    stale = load_record(living.store, job)
    stale.attempts = 1
    with pytest.raises(errors.TakenOver):
        living.store.put_record(job, stale.dump(), (living.processes.worker, 1))


def test_a_maker_that_was_held_up_promises_nothing_that_was_swept_away(slow_place, monkeypatch):
    """It wrote the picture, slept, was taken for dead and cleaned up after; then it writes the index."""
    paused, living = slow_place.process(), slow_place.process()
    record, real = record_of(), Bucket.put

    def put(self, path, *more, **options):
        if self is paused.store.bucket and path.endswith("index.json"):
            monkeypatch.undo()
            if slow_place.kind in ("moto", "seaweed"):
                for name, value in s3.environment(slow_place.port).items():
                    monkeypatch.setenv(name, value)
            slow_place.kill(paused)
            until(lambda: not living.processes.is_alive(paused.processes.worker))
            living.store.clean()
        return real(self, path, *more, **options)

    monkeypatch.setattr(Bucket, "put", put)
    with pytest.raises(errors.RelightError):
        paused.store.create(record.job_id, {JobFile.INPUT: b"swept", JobFile.JOB: record.dump()})
    if living.store.exists(record.job_id):
        assert JobFile.INPUT not in living.store.names(record.job_id)


def test_clocks_do_not_matter(bucket_place, monkeypatch):
    """A process whose clock is five minutes ahead sees the others live, and the same ages as they do."""
    one = bucket_place.process()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 300)
    ahead = bucket_place.process()
    try:
        job = new(ahead.store)
        assert abs(one.store.now() - ahead.store.now()) < 3
        assert ahead.processes.is_alive(one.processes.worker) and one.processes.is_alive(ahead.processes.worker)
        assert abs(ahead.store.touch(job) - one.store.now()) < 3
        first = ahead.processes.take_ticket("ab", time.time_ns())
        monkeypatch.undo()
        until(lambda: not one.processes.is_alone())
        second = one.processes.take_ticket("ab", time.time_ns())
        assert not ahead.processes.is_newest("ab", first) and one.processes.is_newest("ab", second)
    finally:
        monkeypatch.undo()


def test_tickets(place):
    one, other = place.process(), place.process()
    until(lambda: not one.processes.is_alone() and not other.processes.is_alone())
    first = one.processes.take_ticket("ab", time.time_ns())
    assert one.processes.is_newest("ab", first)
    second = other.processes.take_ticket("ab", time.time_ns())
    assert not one.processes.is_newest("ab", first) and other.processes.is_newest("ab", second)
    elsewhere = one.processes.take_ticket("cd", time.time_ns())
    third = one.processes.take_ticket("ab", time.time_ns())
    assert one.processes.is_newest("ab", third) and one.processes.is_newest("cd", elsewhere)
    assert not other.processes.is_newest("ab", second) and other.processes.is_newest("ab", None)


def test_an_answer_that_was_lost_is_found_out(bucket_place, monkeypatch):
    """The store wrote, the answer did not arrive, and the library asked again: that is no conflict."""
    one = bucket_place.process()
    real = Bucket.put

    def twice(self, path, data, expected=None, *more, **options):
        if path.startswith(("jobs/", "locks/")) and expected is not None:
            real(self, path, data, expected, *more, **options)
        return real(self, path, data, expected, *more, **options)

    monkeypatch.setattr(Bucket, "put", twice)
    job = new(one.store)
    one.store.put(job, JobFile.RELIT, b"lit")
    with one.processes.room_lock(1):
        pass
    with one.processes.room_lock(3):
        pass
    monkeypatch.undo()
    assert bytes(one.store.get(job, JobFile.RELIT)) == b"lit"


@pytest.mark.parametrize("arrives", [True, False])
def test_a_write_whose_answer_never_came_leaves_the_file_whole(bucket_place, monkeypatch, arrives):
    """The store wrote the index, or did not, and was away before it said so: one of the two contents is there."""
    one = bucket_place.process()
    job = new(one.store)
    one.store.put(job, JobFile.MASKS, b"old")
    real = Bucket.put

    def put(self, path, data, expected=None, *more, **options):
        if not path.endswith("index.json"):
            return real(self, path, data, expected, *more, **options)
        if arrives:
            real(self, path, data, expected, *more, **options)
        raise errors.StoreAway()

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", put)
        with pytest.raises(errors.StoreAway):
            one.store.put(job, JobFile.MASKS, b"new")
        with pytest.raises(errors.StoreAway):
            new(one.store)
    other = bucket_place.process()
    for _ in range(2):
        assert bytes(other.store.get(job, JobFile.MASKS)) == (b"new" if arrives else b"old")
        one.store.clean()
    assert [e.job_id for e in other.store.list()] == [job]
    assert {p.split("/")[1] for p in bucket_place.paths() if p.startswith("jobs/")} == {job}


# -- the start


def test_a_store_without_conditional_puts_is_refused(tmp_path):
    from obstore.store import LocalStore, MemoryStore

    check(Bucket(MemoryStore()), "probe")
    with pytest.raises(errors.StartupError, match="conditional"):
        check(Bucket(LocalStore(tmp_path)), "probe")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    class Careless(Bucket):
        """One that takes no notice of conditions."""

        def put(self, path, data, expected=None, about=None):
            return super().put(path, data)

    with pytest.raises(errors.StartupError, match="If-Match"):
        check(Careless(MemoryStore()), "probe")


def test_without_obstore_the_start_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(errors.StartupError, match=r"requirements-cluster\.txt"):
        connect("s3://bucket/prefix")


@pytest.mark.parametrize(
    "url", ["s3:/x", "ftp://x", "s3://", "bucket", "s3://b?x=1", "s3://key:secret@b/x", "file:///tmp", "s3://b/ x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(errors.StartupError, match="RELIGHT_STORE") as told:
        load(store=url)
    assert "secret" not in str(told.value)


def test_a_bucket_that_is_not_there_ends_the_start(servers, monkeypatch):
    for name, value in s3.environment(servers("moto")[0]).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(errors.StartupError, match="RELIGHT_STORE") as told:
        backends.check(load(store="s3://there-is-no-such-bucket"))
    assert s3.SECRET not in str(told.value)


def test_what_the_store_is_told_to_encrypt_is_encrypted(servers, monkeypatch):
    import boto3

    port, bucket = servers("moto")
    for name, value in {**s3.environment(port), "AWS_SERVER_SIDE_ENCRYPTION": "AES256"}.items():
        monkeypatch.setenv(name, value)
    made = backends.open_backend(load(store=f"s3://{bucket}/sealed", lease_seconds=LEASE))
    try:
        new(made.store)
    finally:
        made.processes.close()
    client = s3.client(port, boto3)
    objects = [o["Key"] for o in client.list_objects_v2(Bucket=bucket, Prefix="sealed/")["Contents"]]
    assert len(objects) >= 2
    assert all(client.head_object(Bucket=bucket, Key=o)["ServerSideEncryption"] == "AES256" for o in objects)


def test_new_is_new(bucket_place):
    version = bucket_place.bucket.put("jobs/x", b"1", NEW)
    with pytest.raises(Conflict):
        bucket_place.bucket.put("jobs/x", b"2", NEW)
    bucket_place.bucket.put("jobs/x", b"3", version)
    with pytest.raises(Conflict):
        bucket_place.bucket.put("jobs/x", b"4", version)
    bucket_place.bucket.delete(["jobs/x", "jobs/never"])
    with pytest.raises(Conflict):
        bucket_place.bucket.put("jobs/x", b"5", version)


def test_two_that_write_at_once_never_both_succeed(bucket_place):
    """Many conditional puts at once: as many succeed as the count then tells."""
    buckets = [bucket_place.bucket, connect(bucket_place.settings.store) if bucket_place.kind != "memory" else
               bucket_place.bucket]  # fmt: skip
    buckets[0].put("locks/count", b"0", NEW)
    won = []

    def work(bucket):
        for _ in range(15):
            found = bucket.find("locks/count")
            try:
                bucket.put("locks/count", str(int(found.data) + 1).encode(), found.version)
                won.append(1)
            except Conflict:
                pass

    threads = [threading.Thread(target=work, args=(b,)) for b in buckets * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert int(bucket_place.bucket.get("locks/count")) == len(won) > 0
