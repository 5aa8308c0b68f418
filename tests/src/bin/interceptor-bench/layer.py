"""Calls that LSM programs look at, each many times over, and one that they do not look at."""

import array
import fcntl
import os
import socket
import tempfile
import termios
import time


def timed(name, count, call):
    for _ in range(count // 10):
        call()
    begun = time.perf_counter_ns()
    for _ in range(count):
        call()
    print(name, (time.perf_counter_ns() - begun) // count)


def connect():
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(path)
        listener.accept()[0].close()


def passed():
    left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    _, ancillary, _, _ = right.recvmsg(1, socket.CMSG_SPACE(4))
    os.close(array.array("i", ancillary[0][2])[0])


def executed():
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "own")
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
left, right = socket.socketpair()
reading, writing = os.pipe()
size = bytearray(4)

timed("getppid", 20000, os.getppid)
timed("socket", 2000, lambda: socket.socket().close())
timed("ioctl", 10000, lambda: fcntl.ioctl(reading, termios.FIONREAD, size))
timed("connect to a Unix socket", 1000, connect)
timed("pass a file", 1000, passed)
timed("execute a program", 40, executed)
