"""An agent in a container: it does what it is told, a line at a time, or the one word that it is given.

Its network has a loopback and nothing else.
"""
import socket
import subprocess
import sys


def dial():
    try:
        socket.create_connection(("192.0.2.1", 5432), timeout=5)
        return "connected"
    except OSError as error:
        return type(error).__name__


def query():
    settings = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=require"
    words = ["psql", "-X", "-A", "-t", "-d", settings, "-c", "SELECT count(*) FROM users"]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return (done.stdout + done.stderr).strip().replace("\n", " ")


WORDS = {"dial": dial, "query": query}

if len(sys.argv) > 1:
    print(WORDS[sys.argv[1]]())
    sys.exit()
print("ready", flush=True)
for line in sys.stdin:
    print(WORDS[line.strip()](), flush=True)
