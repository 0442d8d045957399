"""A client of redis that asks many things without waiting for answers.

    pipeline.py ask ADDRESS COUNT READ        reads only so many bytes of the answers, and waits
    pipeline.py hear DESCRIPTOR COUNT READ    reads the others
"""

import signal
import socket
import sys

count, read = map(int, sys.argv[3:])
page = b"x" * 1000


def receive(connection, length):
    received = bytearray()
    while len(received) < length:
        piece = connection.recv(1 << 20)
        assert piece, "the connection has ended"
        received += piece
    return received


if sys.argv[1] == "ask":
    connection = socket.create_connection((sys.argv[2], 6379))
    connection.sendall(b"SET page %s\r\n" % page)
    assert connection.recv(5, socket.MSG_WAITALL) == b"+OK\r\n"
    connection.sendall(b"INCR counter\r\nGET page\r\n" * (count // 2))
    connection.recv(read, socket.MSG_WAITALL)
    # More of them are on their way.
    connection.recv(10_000, socket.MSG_WAITALL | socket.MSG_PEEK)
    print("asked", flush=True)
    signal.pause()
else:
    connection = socket.socket(fileno=int(sys.argv[2]))
    answers = [b":%d\r\n$%d\r\n%s\r\n" % (n, len(page), page) for n in range(1, count // 2 + 1)]
    expected = b"".join(answers)[read:]
    assert receive(connection, len(expected)) == expected, "other answers"
    # It is a connection like any other.
    connection.sendall(b"GET counter\r\n")
    number = b"%d" % (count // 2)
    assert connection.recv(100) == b"$%d\r\n%s\r\n" % (len(number), number), "another counter"
