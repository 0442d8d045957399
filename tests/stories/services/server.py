"""A web server of one file, which is its standard input.

How far it has come is nowhere but in the position of that open file, which the kernel moves by what
sendfile has given to the connection. So whoever has the connection and the same open file can go on.

    server.py serve ADDRESS                   slowly, so that there is time to dump it meanwhile
    server.py go-on LISTENER CONNECTION       two descriptors from `ucr restore`; as fast as it can
"""

import os
import socket
import struct
import sys

SO_MAX_PACING_RATE = 47
SLOW, FAST = 8 << 20, 0xFFFF_FFFF


def send(connection, rate):
    connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("I", rate))
    while os.sendfile(connection.fileno(), 0, None, 1 << 20):
        pass
    connection.close()


def serve(listener, rate):
    while True:
        connection, _ = listener.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(4096)
        size = os.lseek(0, 0, os.SEEK_END)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        os.lseek(0, 0, os.SEEK_SET)
        send(connection, rate)


if sys.argv[1] == "serve":
    listener = socket.create_server((sys.argv[2], 80))
    print("ready", flush=True)
    serve(listener, SLOW)
else:
    listener, connection = (socket.socket(fileno=int(number)) for number in sys.argv[2:])
    send(connection, FAST)
    serve(listener, FAST)
