"""Hands everything on to a server on a unix socket: what comes by a connection that is there already,
and by those that come to a listener.

    relay.py SERVER LISTENER CONNECTION       two descriptors from `ucr restore`
"""

import os
import socket
import sys
import threading


def copy(source, target):
    while piece := source.recv(1 << 16):
        target.sendall(piece)
    target.shutdown(socket.SHUT_WR)


def relay(client):
    # Whoever had it before did not want to wait.
    client.setblocking(True)
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[1])
    for ends in (client, server), (server, client):
        threading.Thread(target=copy, args=ends).start()


listener, connection = (socket.socket(fileno=int(number)) for number in sys.argv[2:])
relay(connection)
listener.setblocking(True)
while True:
    relay(listener.accept()[0])
