"""Answers each datagram with itself.

    echo.py at ADDRESS
    echo.py with DESCRIPTOR       a socket from `ucr restore`
"""

import asyncio
import socket
import sys


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
        print("ready", flush=True)

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def main():
    if sys.argv[1] == "at":
        how = {"local_addr": (sys.argv[2], 7)}
    else:
        how = {"sock": socket.socket(fileno=int(sys.argv[2]))}
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, **how)
    await asyncio.Event().wait()


asyncio.run(main())
