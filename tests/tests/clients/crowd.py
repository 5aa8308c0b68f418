"""Many connections at once, then many new ones in a row: each says a word and must get just that back.

    crowd.py HOST PORT AT_ONCE A_SECOND SECONDS
"""
import asyncio
import resource
import sys
import time

# In seconds, for one of them: an emulated machine is slow, and what comes late is not lost.
PATIENCE = 600
HOST, PORT, AT_ONCE, A_SECOND, SECONDS = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


async def say(reader, writer, word):
    writer.write(word)
    async with asyncio.timeout(PATIENCE):
        heard = await reader.readexactly(len(word))
    assert heard == word, (heard, word)


async def leave(reader, writer):
    """Ends it from both sides, so that whoever was between them has room for the next when all have left."""
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        rest = await reader.read()
    assert rest == b"", rest
    writer.close()


async def open_one(gate):
    async with gate, asyncio.timeout(PATIENCE):
        return await asyncio.open_connection(HOST, PORT)


async def at_once():
    gate = asyncio.Semaphore(200)
    crowd = await asyncio.gather(*(open_one(gate) for _ in range(AT_ONCE)), return_exceptions=True)
    lost = [one for one in crowd if isinstance(one, BaseException)]
    crowd = [one for one in crowd if not isinstance(one, BaseException)]
    for turn in range(2):
        words = (say(*one, b"%08d-%d" % (number, turn)) for number, one in enumerate(crowd))
        lost += [one for one in await asyncio.gather(*words, return_exceptions=True) if one is not None]
    lost += [one for one in await asyncio.gather(*(leave(*one) for one in crowd), return_exceptions=True) if one is not None]
    print("at once", len(crowd), "lost", len(lost), lost[:3], flush=True)


async def one_more(number):
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(HOST, PORT)
        await say(reader, writer, b"%08d" % number)
        writer.close()


async def in_a_row():
    tasks, begun = [], time.monotonic()
    for number in range(A_SECOND * SECONDS):
        if (wait := begun + number / A_SECOND - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one_more(number)))
    lost = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if one is not None]
    took = time.monotonic() - begun
    print("in a row", len(tasks), "lost", len(lost), lost[:3], "a second", round(len(tasks) / took), flush=True)


async def main():
    await at_once()
    await in_a_row()


asyncio.run(main())
