"""Asks for names whose addresses every host knows without asking anybody, as the bare protocol of RFC 1035."""

import socket
import struct

A, HTTPS = 1, 65
SERVER = ("192.0.2.53", 53)


def ask(name, kind=A, by=socket.SOCK_DGRAM):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    with socket.socket(socket.AF_INET, by) as s:
        s.settimeout(60)
        s.connect(SERVER)
        if by == socket.SOCK_DGRAM:
            s.send(query)
            answer = s.recv(512)
        else:
            s.sendall(struct.pack(">H", len(query)) + query)
            stream = s.makefile("rb")
            answer = stream.read(struct.unpack(">H", stream.read(2))[0])
    number, flags, _, answers, _, _ = struct.unpack(">HHHHHH", answer[:12])
    assert number == 7, number
    return flags & 15, answers


def say(what, answer):
    print(f"{what}: {answer[0]} with {answer[1]}")


say("the inventory's HTTPS", ask("model.internal", HTTPS))
say("somebody's HTTPS", ask("127.0.0.1", HTTPS))
answers = [ask(f"127.1.1.{number}") for number in range(100, 200)]
print("answered:", answers.index((5, 0)))
assert set(answers[answers.index((5, 0)) :]) == {(5, 0)}, answers
say("the first again", ask("127.1.1.100"))
say("one more", ask("127.1.2.100"))
say("one more by TCP", ask("127.1.2.101", by=socket.SOCK_STREAM))
say("the inventory's", ask("model.internal"))
