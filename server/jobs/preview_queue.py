"""Previews of which only the newest counts: what waits in a stream gives way to what comes after it."""

import asyncio
import hashlib
import time
from contextlib import contextmanager
from typing import Dict, Iterator, Optional, Tuple

from ..errors import Superseded
from .base import Coordination


class PreviewTicket:
    """One preview: it waits until it is started, and may be superseded until then."""

    def __init__(self) -> None:
        self.started = False
        self.inherits_place = False  # does it take the place in line of the one it replaces?
        self.stream = ""  # a digest that names the stream to other processes
        self.number: Optional[str] = None  # among those of the stream in all processes
        self.replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def supersede(self) -> bool:
        """Make it give way, if it still waits."""
        if self.started or self.replaced.done():
            return False
        self.replaced.set_result(None)
        return True

    def begin(self) -> None:
        """Called where the work begins. Raises Superseded."""
        if self.replaced.done():
            raise Superseded()
        self.started = True


class PreviewQueue:
    """The newest preview of each stream, here and, by tickets, in the other processes."""

    def __init__(self, processes: Coordination):
        self._processes = processes
        self._newest: Dict[Tuple[str, str, str], PreviewTicket] = {}

    @contextmanager
    def enter(self, job_id: str, owner: str, stream: Optional[str]) -> Iterator[PreviewTicket]:
        """A ticket for one preview, which supersedes the one of its stream that waits. To be used on the event loop."""
        ticket = PreviewTicket()
        if not stream:
            yield ticket
            return
        ticket.stream = hashlib.sha256(f"{job_id}|{owner}|{stream}".encode("utf-8", "replace")).hexdigest()[:32]
        name = (job_id, owner, stream)
        older = self._newest.get(name)
        ticket.inherits_place = older is not None and older.supersede()
        self._newest[name] = ticket
        try:
            yield ticket
        finally:
            if self._newest.get(name) is ticket:
                del self._newest[name]

    def announce(self, ticket: PreviewTicket) -> None:
        """Let the other processes know of it. Blocks."""
        if ticket.stream:
            ticket.number = self._processes.take_ticket(ticket.stream, time.time_ns())

    def begin(self, ticket: PreviewTicket) -> None:
        """Called where the work begins. Blocks. Raises Superseded when a newer one came, to whichever process."""
        ticket.begin()
        if not self._processes.is_newest(ticket.stream, ticket.number):
            raise Superseded()
