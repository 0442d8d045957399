"""Where a server listens: at a path, or at HOST:PORT, in which there is no slash.

The code of all that are told so, servers and clients, follows this one.
"""

import asyncio
import socket


def address(where):
    """Of which family it is, and how the socket module has it."""
    if "/" in where:
        return socket.AF_UNIX, where
    host, port = where.split(":")
    return socket.AF_INET, (host, int(port))


def connect(where):
    family, place = address(where)
    connection = socket.socket(family)
    connection.connect(place)
    if family == socket.AF_INET:
        # Else what is sent in two pieces may wait for an acknowledgement in between.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def open_connection(where, **options):
    """The same by asyncio, which does not wait over TCP either."""
    family, place = address(where)
    if family == socket.AF_UNIX:
        return asyncio.open_unix_connection(place, **options)
    return asyncio.open_connection(*place, **options)


def start_server(serve, where, **options):
    family, place = address(where)
    if family == socket.AF_UNIX:
        return asyncio.start_unix_server(serve, place, **options)
    return asyncio.start_server(serve, *place, **options)


