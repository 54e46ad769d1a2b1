"""S3 servers for tests: moto's in this process, SeaweedFS as a process of its own, and a way to cut them off."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path

from serving import free_port

KEY, SECRET = "test-access-key", "test-secret-key-9f2c"
WEED = Path(sys.executable).with_name("weed")


def environment(port):
    """What obstore reads."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
    }


def new_bucket(port):
    """The name of a bucket made now."""
    import boto3

    name, asked = f"relight-{uuid.uuid4().hex[:12]}", client(port, boto3)
    asked.create_bucket(Bucket=name)
    asked.put_object(Bucket=name, Key="first", Body=b"1")  # SeaweedFS takes its time for the first
    return name


def client(port, boto3):
    """Another library's view of the same store."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


@contextlib.contextmanager
def moto():
    """The port of moto's server. One request at a time: it looks at conditions first and writes afterwards."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_):
            pass

    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ, start_response):
        with lock:
            return list(app(environ, start_response))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Seaweed:
    """A real S3 server over a folder: it can be stopped and started again."""

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(
            f'{{"identities": [{{"name": "t", "credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}],'
            ' "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}'
        )
        self.port, *self._others = [_two_free() for _ in range(4)]
        self.start()

    def start(self):
        """Until it answers."""
        master, volume, filer = self._others
        command = [
            str(WEED), "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", f"-master.port={master}",
            f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={self.port}",
            f"-s3.config={self.folder / 's3.json'}", "-volume.max=30", "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2).close()
                return self
            assert self.process.poll() is None, "SeaweedFS does not start; see its log"
            time.sleep(0.1)
        self.stop()
        raise AssertionError("SeaweedFS does not answer; see its log")

    def stop(self):
        """As an operator stops it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _two_free():
    """A port, free as is the one 10000 above, where each part of it speaks gRPC; below those that systems give out."""
    while True:
        port = random.SystemRandom().randrange(11_000, 22_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port


@contextlib.contextmanager
def seaweed(folder):
    """A running one."""
    server = Seaweed(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder / "data", ignore_errors=True)


class Gate:
    """A port before another that can be closed: then nobody gets through, and those who were are cut off."""

    def __init__(self, port, delay=0.0):
        self.behind, self.port, self.delay = port, free_port(), delay  # delay: of what goes in, in seconds
        self._pairs, self._listener = [], None
        self.open()

    def open(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for s in pair:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
                s.close()
        self._pairs = []

    def _accept(self, listener):
        while True:
            try:
                near = listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.behind))
            except OSError:
                return
            self._pairs.append((near, far))
            answered = threading.Event()
            answered.set()
            for a, b, asks in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(a, b, asks, answered), daemon=True).start()

    def _pump(self, a, b, asks, answered):
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 16):
                if asks and answered.is_set():  # the first bytes of a request
                    answered.clear()
                    time.sleep(self.delay)
                elif not asks:
                    answered.set()
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
