"""echoing.py WHERE: answers each line with itself, after the number of lines that came by this connection."""

import asyncio
import sys

# A line may be as long.
LIMIT = 1 << 22


async def serve(reader, writer):
    count = 0
    while line := await reader.readline():
        count += 1
        writer.write(b"%d " % count + line)
        await writer.drain()
    writer.close()


async def main():
    server = await start_server(serve, sys.argv[1], limit=LIMIT)
    await server.serve_forever()


asyncio.run(main())
