"""upstream.py WHERE: the web server behind nginx. Each page tells its number, over and over."""

import asyncio
import sys


async def serve(reader, writer):
    while request := await reader.readline():
        number = int(request.split()[1].removeprefix(b"/"))
        while await reader.readline() != b"\r\n":
            pass
        page = b"%d " % number * (1 + number * 37 % 20_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page))
        writer.write(page)
        await writer.drain()
    writer.close()


async def main():
    server = await start_server(serve, sys.argv[1])
    await server.serve_forever()


asyncio.run(main())
