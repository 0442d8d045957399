"""echo.py WHERE CONNECTIONS NEWCOMERS: an asyncio program that talks with a server that counts and echoes lines."""

import asyncio

# So many lines are on their way by one connection. Some are longer than what its buffers take.
WINDOW = 5
LIMIT = 1 << 22


def line(number):
    length = 1 + (200_000 if number % 50 == 0 else number * 37 % 1000)
    return b"%d " % number * length + b"\n"


async def client(talk, number, reader, writer):
    window = asyncio.Semaphore(WINDOW)
    asked = []

    async def ask():
        count = 0
        while not talk.is_over:
            await window.acquire()
            count += 1
            writer.write(line(count))
            await writer.drain()
            # Where all of it is read at once nobody else would have a turn.
            await asyncio.sleep(0)
        asked.append(count)
        writer.write_eof()

    async def hear():
        count = 0
        while answer := await reader.readline():
            count += 1
            compare(answer, b"%d " % count + line(count))
            window.release()
            talk.did(number)
        compare([count], asked)

    await asyncio.gather(ask(), hear())
    writer.close()


async def newcomer(talk, number):
    while not talk.is_over:
        reader, writer = await open_connection(talk.where, limit=LIMIT)
        writer.write(line(1))
        compare(await reader.readline(), b"1 " + line(1))
        writer.close()
        await writer.wait_closed()
        talk.did(number)


async def guard(talk, conversation):
    try:
        await conversation
    except Exception as error:
        talk.failed(f"{conversation.__qualname__}: {error!r}")


async def main():
    talk = Talk()
    conversations = []
    for _ in range(talk.connections):
        reader, writer = await open_connection(talk.where, limit=LIMIT)
        conversations.append(client(talk, talk.conversation(), reader, writer))
    for _ in range(talk.newcomers):
        conversations.append(newcomer(talk, talk.conversation()))
    talk.begin()
    await asyncio.gather(*(guard(talk, each) for each in conversations))
    talk.end()


asyncio.run(main())
