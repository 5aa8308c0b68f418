"""A process that is not captured, as many run on a host: it serves a TCP port on loopback and Unix sockets, and passes
a socket of its own, connected to the world, to whoever connects to one of these.

`deputy.py PORT` serves; each line of its input, `{"path": ..., "mode": ...}`, is one more Unix socket.
"""
import json
import os
import socket
import sys
import threading

world = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
world.connect(("192.0.2.1", 9))


def serve(listener, answer):
    def loop():
        while True:
            peer, _ = listener.accept()
            try:
                answer(peer)
            except OSError:
                pass
            peer.close()

    threading.Thread(target=loop, daemon=True).start()


serve(socket.create_server(("127.0.0.1", int(sys.argv[1]))), lambda peer: peer.sendall(b"host"))
print("ready", flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    listener = socket.socket(socket.AF_UNIX)
    path = wanted["path"]
    listener.bind("\0" + path[1:] if path.startswith("@") else path)
    if not path.startswith("@"):
        os.chmod(path, wanted["mode"])
    listener.listen()
    serve(listener, lambda peer: socket.send_fds(peer, [b"taken"], [world.fileno()]))
    print("bound", flush=True)
