"""Breaks PostgreSQL's protocol in every way it knows, and prints what came of each; then waits for its answers."""
import os
import struct
import sys

from wire import dial, drain, message, session, startup


def first(secure, payload):
    def do():
        s = dial(secure)
        s.sendall(payload)
        return drain(s)

    return do


def within(payload):
    def do():
        s = session()
        try:
            s.sendall(payload)
        except OSError:
            pass
        return drain(s)

    return do


TRIALS = {
    "a start of length 0": first(False, struct.pack(">I", 0) + b"x" * 8),
    "a start of length 4": first(False, struct.pack(">I", 4)),
    "a start of negative length": first(False, struct.pack(">i", -1) + b"x" * 8),
    "a start of 2 GiB": first(False, struct.pack(">I", 0x7FFFFFFF) + b"x" * 8),
    "a start of an unknown version": first(True, startup(0x00090000, user="x")),
    "a start without a user": first(True, startup(database="orders")),
    "a start that is not ended": first(True, startup(user="x")[:-1] + b"y"),
    "HTTP": first(False, b"GET / HTTP/1.1\r\nHost: db.internal\r\n\r\n"),
    "SSH": first(False, b"SSH-2.0-OpenSSH_9.2\r\n"),
    "two requests for TLS": first(True, struct.pack(">II", 8, 80877103)),
    "bytes behind the request for TLS": first(False, struct.pack(">II", 8, 80877103) + startup(user="x")),
    "noise": first(False, os.urandom(5000)),
    "noise in TLS": first(True, os.urandom(5000)),
    "a length of 3": within(b"Q" + struct.pack(">I", 3) + b"x"),
    "a negative length": within(b"Q" + struct.pack(">i", -5)),
    "a length of 2 GiB": within(b"Q" + struct.pack(">I", 0x7FFFFFFF) + b"SELECT 1" * 1000),
    "an unknown kind": within(message(b"~", b"x")),
    "a query without its end": within(message(b"Q", b"SELECT 1")),
    "a query with a NUL inside": within(message(b"Q", b"SELECT 1\0; DROP TABLE users\0")),
    "a query that is no UTF-8": within(message(b"Q", b"SELECT '\xff\xfe'\0") + message(b"X")),
    "a function call": within(message(b"F", struct.pack(">IHHH", 1598, 0, 0, 0)) + message(b"X")),
    "copied rows out of turn": within(message(b"d", b"rows") + message(b"X")),
    "a bind of nothing": within(message(b"B", b"\0none\0" + struct.pack(">HHH", 0, 0, 0)) + message(b"S") + message(b"X")),
    "a bind that promises too much": within(message(b"B", b"\0\0" + struct.pack(">HHI", 0, 65535, 5)) + message(b"S")),
    "an execute of nothing": within(message(b"E", b"none\0\0\0\0\0") + message(b"S") + message(b"X")),
    "10000 syncs": within(message(b"S") * 10000 + message(b"X")),
    "20000 nested parentheses": within(message(b"Q", b"SELECT " + b"(" * 20000 + b"1" + b")" * 20000 + b"\0") + message(b"X")),
    "a statement of 4 MiB": within(message(b"Q", b"SELECT '" + b"x" * (4 << 20) + b"'\0") + message(b"X")),
    "50000 statements": within(message(b"Q", b"SELECT 1;" * 50000 + b"\0") + message(b"X")),
    "a message that never ends": within(b"Q" + struct.pack(">I", 1000) + b"SELECT"),
    "a password out of turn": within(message(b"p", b"secret\0") + message(b"X")),
}

only = sys.argv[1:] or list(TRIALS)
for name in only:
    try:
        heard, end = TRIALS[name]()
        print(f"{name}: {len(heard)} bytes, {end}", flush=True)
    except Exception as error:
        print(f"{name}: {error!r}", flush=True)
print("all tried")
