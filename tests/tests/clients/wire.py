"""PostgreSQL's protocol by hand, for clients that want to do with it what no driver does."""
import socket
import ssl
import struct

HOST, PORT = "db.internal", 5432
trust = ssl.create_default_context()


def message(kind, body=b""):
    return kind + struct.pack(">I", len(body) + 4) + body


def startup(version=196608, **settings):
    body = struct.pack(">I", version)
    body += b"".join(key.encode() + b"\0" + value.encode() + b"\0" for key, value in settings.items()) + b"\0"
    return struct.pack(">I", len(body) + 4) + body


def dial(secure=True, buffer=None):
    s = socket.socket()
    if buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    s.settimeout(60)
    s.connect((HOST, PORT))
    s.settimeout(20)
    if secure:
        s.sendall(struct.pack(">II", 8, 80877103))
        assert s.recv(1) == b"S"
        s = trust.wrap_socket(s, server_hostname=HOST)
    return s


def drain(s):
    heard = b""
    try:
        while chunk := s.recv(65536):
            heard += chunk
            if len(heard) > 1 << 20:
                break
    except (TimeoutError, socket.timeout):
        return heard, "still open"
    except OSError as error:
        return heard, type(error).__name__
    return heard, "closed"


def session():
    s = dial()
    s.sendall(startup(user="whoever", database="orders"))
    heard = b""
    while b"Z\0\0\0\x05" not in heard:
        chunk = s.recv(65536)
        if not chunk:
            raise OSError(f"closed at log-in: {heard!r}")
        heard += chunk
        if heard[:1] == b"R" and heard[8:9] == b"\x03" and b"p" not in heard[:1]:
            s.sendall(message(b"p", b"whatever\0"))
            heard = b""
    return s


class Session:
    """A session that was opened, in clear unless said otherwise, and its messages one by one."""

    def __init__(self, secure=False, buffer=None, **settings):
        self.socket = dial(secure, buffer)
        self.socket.settimeout(100)
        self.heard = b""
        self.socket.sendall(startup(user="whoever", database="orders", **settings))
        self.begun = self.until(b"Z")

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def next(self):
        """The next message, its kind and its body; an OSError at the end of the stream."""
        while len(self.heard) < 5 or len(self.heard) < 1 + struct.unpack(">I", self.heard[1:5])[0]:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise EOFError(f"closed, with {self.heard!r} left over")
            self.heard += chunk
        length = 1 + struct.unpack(">I", self.heard[1:5])[0]
        kind, body, self.heard = self.heard[:1], self.heard[5:length], self.heard[length:]
        return kind, body

    def until(self, kind):
        """All messages up to the next of that kind."""
        found = [self.next()]
        while found[-1][0] != kind:
            found.append(self.next())
        return found

    def query(self, sql):
        self.send(message(b"Q", sql.encode() + b"\0"))
        return self.until(b"Z")

    def rows(self, sql):
        """The first column of every row, as text."""
        return firsts(self.query(sql))

    def key(self):
        """What a cancel request for it must carry."""
        return next(body for kind, body in self.begun if kind == b"K")

    def close(self):
        self.send(message(b"X"))
        assert self.socket.recv(1) == b"", "closed by both"
        self.socket.close()


def firsts(messages):
    def first(body):
        length = struct.unpack(">i", body[2:6])[0]
        return None if length < 0 else body[6:6 + length].decode()

    return [first(body) for kind, body in messages if kind == b"D"]


def fields(body):
    """An error's or notice's fields, by their letter."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def parse(sql, name=""):
    return message(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(portal="", statement=""):
    return message(b"B", portal.encode() + b"\0" + statement.encode() + b"\0" + b"\0" * 6)


def execute(portal="", rows=0):
    return message(b"E", portal.encode() + b"\0" + struct.pack(">I", rows))


SYNC = message(b"S")
