"""Gives back what it hears, to as many as come. Prints its port, and at the end of its input how many came."""
import asyncio
import sys

came = 0


async def serve(reader, writer):
    global came
    came += 1
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(came, flush=True)


asyncio.run(main())
