"""An agent that runs before it is captured: it has sockets from before, and does what it is told, a line at a time.

`attached.py PORT`: the database's own port on loopback.
"""
import socket
import subprocess
import sys

port = int(sys.argv[1])
before = socket.create_connection(("127.0.0.1", port))
unused = socket.socket()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])


def over(s):
    """What the server says to a request for TLS."""
    s.settimeout(5)
    s.sendall(REQUEST)
    return s.recv(1).decode() or "closed"


def dial(s):
    s.settimeout(5)
    s.connect(("127.0.0.1", port))
    return over(s)


def query():
    settings = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=require"
    words = ["psql", "-X", "-A", "-t", "-d", settings, "-c", "SELECT count(*) FROM users"]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return (done.stdout + done.stderr).strip().replace("\n", " ")


WORDS = {
    "before": lambda: over(before),
    "close": lambda: before.close() or "closed",
    "dial": lambda: dial(socket.socket()),
    "unused": lambda: dial(unused),
    "datagrams": lambda: datagrams.sendto(b"x", ("192.0.2.1", 9)),
    "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)),
    "query": query,
}

print("ready", flush=True)
for line in sys.stdin:
    try:
        print(WORDS[line.strip()](), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
