"""asyncpg, as an agent would use it: one line for each kind of work."""
import asyncio
import ssl
import sys

# This file has the module's own name: its folder must not be searched.
sys.path.pop(0)
import asyncpg  # noqa: E402


async def main():
    session = await asyncpg.connect(
        host="db.internal", database="orders", user="whoever", password="whatever", ssl=ssl.create_default_context()
    )
    print("connect: ok")
    await session.execute("SELECT name FROM users WHERE id = 1")
    print("simple: ok")
    print("extended:", await session.fetchval("SELECT name FROM users WHERE id = $1", 7))
    await session.executemany("INSERT INTO notes (body) VALUES ($1)", [("one",), ("two",), ("three",)])
    print("pipelined:", await session.fetchval("SELECT count(*) FROM notes WHERE body IN ('one', 'two', 'three')"))
    try:
        # Long enough that it has begun: a cancel request that comes before that does nothing.
        await session.fetchval("SELECT pg_sleep(600)", timeout=5)
    except (asyncio.TimeoutError, asyncpg.QueryCanceledError):
        print("cancelled: ok")
    try:
        await session.execute("DROP TABLE users")
    except asyncpg.InsufficientPrivilegeError as error:
        print("refused:", error.sqlstate, error.message, "/", error.hint)
    try:
        await session.fetch("SELECT * FROM secrets WHERE id = $1", 1)
    except asyncpg.InsufficientPrivilegeError as error:
        print("refused-extended:", error.sqlstate)
    async with session.transaction():
        cursor = await session.cursor("SELECT id FROM users ORDER BY id")
        print("cursor:", [row[0] for row in await cursor.fetch(3)])
    print("after:", await session.fetchval("SELECT count(*) FROM users"))
    await session.close()


asyncio.run(main())
