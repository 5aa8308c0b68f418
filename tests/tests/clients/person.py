"""A person's log-in session: does what it is told, a line at a time. `person.py ROOT`: the installation."""
import os
import subprocess
import sys

SETTINGS = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=require"
SEE = ["psql", "-X", "-A", "-t", "-d", SETTINGS, "-c", "SELECT code, upper(code) FROM people WHERE id = 1"]


def say(words):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return (done.stdout + done.stderr).strip().replace("\n", " ")


print("ready", flush=True)
for line in sys.stdin:
    word, *more = line.split()
    if word == "pid":
        print(os.getpid(), flush=True)
    elif word == "see":
        print(say(more + SEE), flush=True)
    elif word == "vouch":
        product = ["/run/product/interceptor", "--root", sys.argv[1], "approvals", "vouch", "--shell", str(os.getpid())]
        product += ["--program", "/usr/bin/psql"]
        print(say(product + more + ["--for", "5m"]), flush=True)
