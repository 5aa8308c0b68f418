"""Sends as it is told, a line at a time: `sender.py V4 V6`, addresses beyond the host."""
import socket
import sys

v4, v6 = sys.argv[1:]
kept = {}


def datagram(family, to):
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (to, 9))
    return "sent"


def dial(family, to):
    return heard(connected(family, to))


def connected(family, to):
    s = socket.socket(family)
    s.settimeout(1)
    s.connect((to, 80))
    return s


def heard(s):
    s.sendall(b"x")
    # The proxy takes a connection that leads nowhere, and closes it.
    return "heard" if s.recv(1) else "closed"


def keep(family, to):
    kept[family] = connected(family, to)
    return heard(kept[family])


WORDS = {
    "datagram4": lambda: datagram(socket.AF_INET, v4),
    "datagram6": lambda: datagram(socket.AF_INET6, v6),
    "dial4": lambda: dial(socket.AF_INET, v4),
    "dial6": lambda: dial(socket.AF_INET6, v6),
    "keep": lambda: keep(socket.AF_INET, v4),
    "kept": lambda: heard(kept[socket.AF_INET]),
    "keep6": lambda: keep(socket.AF_INET6, v6),
    "kept6": lambda: heard(kept[socket.AF_INET6]),
}

print("ready", flush=True)
for line in sys.stdin:
    try:
        print(WORDS[line.strip()](), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
