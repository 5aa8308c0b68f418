"""What a captured root process may try to approve for itself: one line for each way, with what came of it.

    pretend.py DOOR ID PRODUCT ROOT UID

Somebody outside comes to DOOR and hands in what no run has: the approvers' folder, a connection that was made
outside, and the host's mount namespace.
"""
import array
import ctypes
import json
import os
import socket
import subprocess
import sys

door, approval, product, root, uid = sys.argv[1:]
wish = json.dumps({"version": 1, "request": {
    "command": "decide", "id": approval, "group": None, "says": {"approve": {"uses": "once", "seconds": 60}}}}).encode()


def told(what, do):
    try:
        print(f"{what}: {do()}", flush=True)
    except OSError as error:
        print(f"{what}: {error.strerror or error}", flush=True)


def ask(connection):
    connection.settimeout(20)
    connection.send(wish)
    return connection.recv(1 << 17).decode() or "closed"


def by_path(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    return ask(connection)


def forge():
    with open("/proc/self/loginuid", "w") as file:
        file.write(uid)
    with open("/proc/self/loginuid") as file:
        return "loginuid is " + file.read()


def product_says(*before):
    command = [*before, product, "--root", root, "approvals", "approve", approval]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    return f"exit {done.returncode} {done.stderr.strip()}"


told("socket", lambda: by_path(f"{root}/run/approvals.sock"))
told("product", product_says)
told("forged session", forge)
told("product with it", product_says)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(door)
listener.listen(1)
outside, _ = listener.accept()
_, control, _, _ = outside.recvmsg(1, socket.CMSG_SPACE(3 * 4))
folder, passed, mounts = array.array("i", control[0][2])
told("passed connection", lambda: ask(socket.socket(fileno=passed)))
told("passed folder", lambda: by_path(f"/proc/self/fd/{folder}/approvals.sock"))
os.fchdir(folder)
told("entered folder", lambda: by_path("approvals.sock"))
os.chdir("/")
told("nsenter", lambda: product_says("nsenter", "-t", "1", "-m", "-p"))
libc = ctypes.CDLL(None, use_errno=True)


def enter():
    if libc.setns(mounts, 0x00020000) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return product_says()


told("passed namespace", enter)
