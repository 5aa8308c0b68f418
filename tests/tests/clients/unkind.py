"""What the protocol allows and nobody does: each trial named on the command line must come out as with the server."""
import os
import socket
import struct
import sys
import threading
import time

from wire import SYNC, Session, bind, dial, execute, fields, firsts, message, parse, startup

RESET = struct.pack("ii", 1, 0)


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


def half_close():
    """The client says that it will send no more, and still gets its answer."""
    s = Session()
    s.send(query("SELECT 'half', count(*) FROM generate_series(1, 200000)"))
    s.socket.shutdown(socket.SHUT_WR)
    assert firsts(s.until(b"Z")) == ["half"]
    assert s.socket.recv(1) == b""


def byte_by_byte():
    """Start-up, a query and a pipeline, each byte in a segment of its own."""
    s = Session.__new__(Session)
    s.heard, s.socket = b"", dial(False)
    s.socket.settimeout(100)
    s.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def drip(data):
        for n in range(len(data)):
            s.socket.sendall(data[n:n + 1])

    drip(startup(user="whoever", database="orders"))
    s.until(b"Z")
    drip(query("SELECT 'drop', name FROM users WHERE id = 1"))
    assert firsts(s.until(b"Z")) == ["drop"]
    drip(parse("SELECT name FROM users WHERE id = 2") + bind() + execute() + SYNC)
    assert firsts(s.until(b"Z")) == ["user2"]
    s.close()


def resets():
    """Connections that are torn down at every stage."""
    slow = "SELECT 'reset', pg_sleep(100)"
    large = "SELECT 'reset', n FROM generate_series(1, 3000000) AS n"
    torn = [b"", query(slow), query(large), query(slow)[:9], parse(slow) + bind() + execute(),
            query("BEGIN") + query("LOCK TABLE notes") + query(slow)]
    for data in torn:
        s = Session()
        s.send(data)
        time.sleep(0.2)
        s.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.socket.close()
    for data in (b"", startup(user="whoever", database="orders")[:7], startup(user="whoever", database="orders")):
        s = dial(False)
        s.sendall(data)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.close()


def cancel_storm():
    """Thousands of cancel requests with wrong keys do nothing; the one with the right key does its work."""
    s = Session()
    s.send(query("SELECT 'storm', pg_sleep(100)"))
    process, secret = s.key()[:4], s.key()[4:]

    def cancel(key):
        c = dial(False)
        c.sendall(struct.pack(">II", 12 + len(key) - 4, 80877102) + key)
        assert c.recv(1) == b""
        c.close()

    for n in range(2000):
        cancel(process + bytes([secret[0] ^ (1 + n % 255)]) + secret[1:])
    s.socket.settimeout(1)
    try:
        kind, _ = s.next()
        raise AssertionError(f"a wrong key did something: {kind}")
    except TimeoutError:
        s.socket.settimeout(100)
    cancel(s.key())
    assert [fields(body)["C"] for kind, body in s.until(b"Z") if kind == b"E"] == ["57014"]
    s.close()


def many_syncs():
    """As many answers as Syncs, and a query behind them."""
    s = Session()
    s.send(SYNC * 10000, query("SELECT 'behind'"))
    for _ in range(10000):
        assert s.next() == (b"Z", b"I")
    assert firsts(s.until(b"Z")) == ["behind"]
    s.close()


def many_portals():
    """A hundred portals open at once, read in turns."""
    s = Session()
    s.query("BEGIN")
    for n in range(100):
        s.send(parse(f"SELECT n FROM generate_series({n * 10}, {n * 10 + 9}) AS n", f"s{n}"), bind(f"p{n}", f"s{n}"))
    for _ in range(2):
        s.send(*(execute(f"p{n}", 1) for n in range(100)))
    s.send(SYNC)
    found = s.until(b"Z")
    assert firsts(found) == [str(n * 10 + turn) for turn in range(2) for n in range(100)], firsts(found)
    assert sum(kind == b"s" for kind, _ in found) == 200
    s.query("COMMIT")
    s.send(execute("p5", 1), SYNC)
    assert [fields(body)["C"] for kind, body in s.until(b"Z") if kind == b"E"] in (["34000"], ["42501"])
    s.close()


def held_cursor():
    """A cursor that outlives its transaction."""
    s = Session()
    s.query("BEGIN")
    s.query("DECLARE held CURSOR WITH HOLD FOR SELECT name FROM users ORDER BY id")
    assert s.rows("FETCH 2 FROM held") == ["user1", "user2"]
    s.query("COMMIT")
    assert s.rows("FETCH 2 FROM held") == ["user3", "user4"]
    s.query("CLOSE held")
    assert not s.rows("FETCH 2 FROM held")
    s.close()


def between_rows():
    """Notices between rows, and notifications while idle and behind an answer."""
    s, other = Session(), Session()
    kinds = b"".join(kind for kind, _ in s.query("SELECT noisy(n) FROM generate_series(1, 3) AS n"))
    assert kinds.replace(b"S", b"") == b"TNDNDNDCZ", kinds
    s.query("LISTEN news")
    other.query("NOTIFY news, 'idle'")
    kind, body = s.next()
    assert kind == b"A" and b"idle\0" in body
    s.query("BEGIN")
    other.query("NOTIFY news, 'later'")
    assert not [kind for kind, _ in s.query("SELECT 1") if kind == b"A"]
    assert [body for kind, body in s.query("COMMIT") if kind == b"A"][0].endswith(b"later\0")
    s.close()
    other.close()


def reads_late():
    """A large result, and a pipeline of large results, read only when told so."""
    one, many = Session(buffer=4096), Session(buffer=4096)
    one.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 60000)"))
    work = parse("SELECT repeat('y', 100000)") + bind() + execute()
    sender = threading.Thread(target=lambda: many.send(work * 400, SYNC))
    sender.start()
    while not os.path.exists("read-now"):
        time.sleep(0.1)
    assert len(firsts(one.until(b"Z"))) == 60000
    assert len(firsts(many.until(b"Z"))) == 400
    sender.join()


def copy_breaks():
    """The server ends a COPY with an error, in either direction and by either protocol; then all goes on."""
    out = "COPY (SELECT 1 / (150000 - n), 'broken out' FROM generate_series(1, 200000) AS n) TO STDOUT"
    into = "COPY users (id, name, email) FROM STDIN /* broken in */"
    wrong = message(b"d", b"1001\tann\ta@x\nno number\tben\tb@x\n")
    more = message(b"d", b"1002\tcy\tc@x\n" * 5000) * 50 + message(b"c")
    s = Session()

    def ends(found, code, status=b"I"):
        assert [fields(body)["C"] for kind, body in found if kind == b"E"] == [code], found[-3:]
        assert found[-1] == (b"Z", status)
        return b"".join(kind for kind, _ in found)

    def extended(text):
        return parse(text) + bind() + execute()

    assert ends(s.query(out), "22012") == b"H" + b"d" * 149999 + b"EZ"
    s.send(extended(out), SYNC)
    assert ends(s.until(b"Z"), "22012") == b"12H" + b"d" * 149999 + b"EZ"
    s.send(query(into))
    assert s.next()[0] == b"G"
    s.send(wrong, more)
    assert ends(s.until(b"Z"), "22P02") == b"EZ"
    assert s.rows("SELECT 'behind a broken COPY'") == ["behind a broken COPY"]
    s.send(extended(into))
    assert s.until(b"G")[-1][0] == b"G"
    s.send(wrong, more, SYNC)
    assert ends(s.until(b"Z"), "22P02") == b"EZ"
    s.query("BEGIN")
    s.send(query(into))
    s.until(b"G")
    s.send(wrong, more)
    ends(s.until(b"Z"), "22P02", b"E")
    ends(s.query("SELECT 1"), "25P02", b"E")
    s.query("ROLLBACK")
    assert s.rows("SELECT count(*) FROM users") == ["100"]
    s.close()


def copy_is_left():
    """The server's session is ended from outside in the middle of a COPY, in either direction."""
    endless = "COPY (SELECT repeat('l', 9000), 'left out', pg_sleep(0.02) FROM generate_series(1, 100000)) TO STDOUT"
    other = Session()
    for text, answer in (("COPY users (id, name, email) FROM STDIN /* left in */", b"G"), (endless, b"d")):
        s = Session()
        s.send(query(text))
        s.until(answer)
        if answer == b"G":
            s.send(message(b"d", b"1003\tdan\td@x\n"))
        other.query(f"SELECT pg_terminate_backend({struct.unpack('>I', s.key()[:4])[0]})")
        said = s.until(b"E")[-1][1]
        assert fields(said)["C"] == "57P01", said
        try:
            raise AssertionError(s.next())
        except (EOFError, ConnectionError):
            pass
    assert other.rows("SELECT count(*) FROM users") == ["100"]
    other.close()


def is_left():
    """The server goes in the middle of a result."""
    s = Session()
    s.send(query("SELECT repeat('l', 9000), 'left', pg_sleep(0.02) FROM generate_series(1, 100000)"))
    rows = 0
    try:
        while True:
            kind, body = s.next()
            rows += kind == b"D"
            if rows == 10:
                open("rows-flow", "w").close()
            if kind == b"E":
                print("left:", fields(body)["C"], fields(body)["M"], flush=True)
    except (EOFError, ConnectionError) as end:
        print("left:", type(end).__name__, "after rows" if rows else "before any row", flush=True)


def crowd():
    """More sessions than the other side has file descriptors: each is served or refused, and all end."""
    sessions, turned_away = [], 0
    for _ in range(60):
        try:
            s = Session.__new__(Session)
            s.heard, s.socket = b"", dial(False)
            s.socket.settimeout(3)
            s.socket.sendall(startup(user="whoever", database="orders"))
            s.until(b"Z")
            sessions.append(s)
        except (EOFError, OSError):
            turned_away += 1
            if turned_away > 4:
                break
    assert sessions and turned_away, (len(sessions), turned_away)
    for s in sessions:
        s.socket.settimeout(100)
        assert s.rows("SELECT 'crowd'") == ["crowd"]
        s.close()


for name in sys.argv[1:]:
    globals()[name]()
    print(f"{name}: done", flush=True)
