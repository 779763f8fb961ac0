"""The relay behind `cachelab.lab.measure.link.Link`, run as a program of its own.

    python relay.py FAMILY ADDRESS PARENT

One loop serves every connection: bytes are stamped when they arrive and released half a round trip
later, so pipelined traffic is late by the delay once, never once per chunk. The loop sleeps until
0.15 ms before the next release and polls from there, because a timer alone is late by about a tenth
of a millisecond; with nothing due it sleeps and costs nothing.
"""

import heapq
import json
import math
import os
import resource
import select
import socket
import struct
import sys
import time
from functools import partial
from itertools import count
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector, SelectorKey

SPIN = 0.00015  # s: polled rather than slept through before a release
HELD = 4 * 2**20  # bytes read ahead of a slow receiver, per direction and connection
DRIPPED = 64  # the same while bytes drip: each then waits by itself


class End:
    """One socket of a connection; ``peer`` is the other."""

    def __init__(self, sock: socket.socket, is_client: bool):
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.is_client = sock, is_client
        self.peer: End
        self.out = bytearray()  # released, not yet taken by the kernel
        self.blocked = not is_client  # not writable: a server's end starts while it is connecting
        self.owed = 0  # bytes read here that the peer's kernel has not taken yet
        # Latest release time of bytes for this end: they keep their order when the delay shrinks.
        self.last = 0.0
        self.ended = False  # nothing more to read
        self.closing = False  # nothing more to write
        self.closed = False  # shut for writing
        self.watched = 0


class Relay:
    """The loop in the relay's process.

    Orders come by standard input, each answered by a line on standard output.
    """

    def __init__(self, family: int, address: str | tuple, parent: int):
        self.family = family
        self.address = address
        self.parent = parent
        self.delay = 0.0  # s, each way
        self.gap = 0.0  # s, between dripped bytes
        self.left: int | None = None  # bytes of replies before the connection is reset
        self.is_cut = False
        self.is_frozen = False
        self.ends: set[End] = set()
        # A heap of release time, order, receiver, bytes.
        self.waiting: list[tuple[float, int, End, bytes]] = []
        self.order = count()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.orders, self.all = DefaultSelector(), DefaultSelector()
        self.orders.register(0, EVENT_READ, self.obey)
        self.all.register(0, EVENT_READ, self.obey)
        self.all.register(self.listener, EVENT_READ, self.accept)

    def run(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8192, hard)), hard))
        os.write(1, b"%d\n" % self.listener.getsockname()[1])
        # Not the end of the pipe alone: a forked sibling may hold it open after the parent is gone.
        while os.getppid() == self.parent:
            events = self.orders.select(1) if self.is_frozen else self.events()
            now = time.perf_counter()
            for key, mask in events:
                key.data(mask, now)
            while self.waiting and not self.is_frozen and self.waiting[0][0] <= time.perf_counter():
                self.release(*heapq.heappop(self.waiting)[2:])

    def events(self) -> list[tuple[SelectorKey, int]]:
        """Wait for the next event, or until shortly before bytes are due."""
        due = self.waiting[0][0] if self.waiting else math.inf
        wait = min(1.0, due - time.perf_counter() - SPIN)
        if wait > 0:
            select.select([self.all], [], [], wait)  # a selector's own is in whole milliseconds
        return self.all.select(0)

    def obey(self, mask: int, now: float) -> None:
        if not (line := os.read(0, 4096)):
            sys.exit()
        vars(self).update(json.loads(line))
        if self.is_cut:
            for end in list(self.ends):
                self.reset(end)
        os.write(1, b"done\n")

    def accept(self, mask: int, now: float) -> None:
        try:
            client = End(self.listener.accept()[0], True)
            server = End(socket.socket(self.family, socket.SOCK_STREAM), False)
        except OSError:  # gone again, or out of files
            return
        client.peer, server.peer = server, client
        self.ends |= {client, server}
        if self.is_cut:
            return self.reset(client)
        # In progress: its outcome shows at the first read or write.
        server.sock.connect_ex(self.address)
        self.watch(client)
        self.watch(server)

    def watch(self, end: End) -> None:
        room = end.owed < (DRIPPED if self.gap else HELD)
        wanted = EVENT_READ * (room and not end.ended) | EVENT_WRITE * end.blocked
        if wanted != end.watched and end in self.ends:
            if end.watched:
                self.all.unregister(end.sock)
            if wanted:
                self.all.register(end.sock, wanted, partial(self.serve, end))
            end.watched = wanted

    def serve(self, end: End, mask: int, now: float) -> None:
        if mask & EVENT_WRITE and end in self.ends:
            end.blocked = False
            self.flush(end)
        if mask & EVENT_READ and end in self.ends:
            self.read(end, now)

    def read(self, end: End, now: float) -> None:
        gap = 0.0 if end.is_client else self.gap
        try:
            data = end.sock.recv(DRIPPED if gap else 2**18)
        except OSError:
            return self.reset(end)
        end.ended = not data
        end.owed += len(data)
        for piece in [data[i : i + 1] for i in range(len(data))] if gap and data else [data]:
            end.peer.last = max(now + self.delay, end.peer.last + gap)
            heapq.heappush(self.waiting, (end.peer.last, next(self.order), end.peer, piece))
        self.watch(end)

    def release(self, end: End, data: bytes) -> None:
        if end not in self.ends:
            return
        last = False
        if data and end.is_client and self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
            last = not self.left
        end.out += data
        end.closing = not data and not last
        if not end.blocked:
            self.flush(end)
        if last:
            self.left = None
            self.reset(end)

    def flush(self, end: End) -> None:
        try:
            sent = end.sock.send(end.out) if end.out else 0
            if end.closing and sent == len(end.out):
                end.sock.shutdown(socket.SHUT_WR)
                end.closed = True
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.reset(end)
        del end.out[:sent]
        end.peer.owed -= sent
        end.blocked = bool(end.out)
        if end.closed and end.peer.closed:
            return self.reset(end)
        self.watch(end)
        self.watch(end.peer)

    def reset(self, end: End) -> None:
        for each in (end, end.peer):
            if each in self.ends:
                self.ends.remove(each)
                if each.watched:
                    self.all.unregister(each.sock)
                if not each.closed:  # closed without a farewell: the other side sees a reset
                    linger = struct.pack("ii", 1, 0)
                    each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                each.sock.close()


if __name__ == "__main__":
    family, address, parent = sys.argv[1:]
    where = json.loads(address)
    Relay(int(family), tuple(where) if isinstance(where, list) else where, int(parent)).run()
