"""
Requests against one site, each with its time and its fate, until a file called stop appears.

Runs on a test host: client.py PARAMETERS-FILE. Every request becomes a line of JSON in the file `out`:
[kind, begun (epoch seconds), milliseconds, what was wrong or empty, the page's line].
"""
# It runs alone, on whatever Python a host has.
# ruff: noqa: ASYNC230, PTH110, PTH123, SIM115, UP031
# mypy: ignore-errors

import asyncio
import hashlib
import json
import os
import sys
import time

P = json.load(open(sys.argv[1]))
LIMIT = 1 << 20


def stopping():
    """Tell whether no further request is to be begun."""
    return os.path.exists(P["stop"])


async def opened():
    """Connect to the site."""
    return await asyncio.open_connection(P["address"], P["port"], limit=LIMIT)


async def answer(reader):
    """Read one answer: status, whether the connection is kept, body."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise OSError("closed before the answer" if not error.partial else "closed in the headers") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = headers.get("content-length")
    try:
        if length is not None:
            body = await reader.readexactly(int(length))
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size = int(await reader.readline() or b"x", 16)
                body += (await reader.readexactly(size + 2))[:-2]
                if not size:
                    break
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, ValueError):
        raise OSError("the body was cut short") from None
    return (
        int(first.split()[1]),
        headers.get("connection", "") != "close" and length is not None,
        body.decode("utf-8", "replace"),
    )


def page_of(status, body):
    """What is wrong with a page, and its line."""
    if not 200 <= status < 300:
        return "status %s: %s" % (status, " ".join(body.split())[:120]), ""
    head, tail = body.partition("\n")[0], body.rstrip("\n").rpartition("\n")[2]
    if not (head.startswith("HEAD ") and tail.startswith("TAIL ") and body.endswith("\n")):
        return "not whole: " + body[:100], ""
    return ("" if head[5:] == tail[5:] else "mixed: %s / %s" % (head, tail)), head[5:]


def request(path, *more, method="GET"):
    """The bytes of a request's head."""
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: " + P["host"], *more, "", ""]
    return "\r\n".join(lines).encode()


async def repeat(out, kind, ask, pause, first):
    """Ask again and again, and write down how it went."""
    await asyncio.sleep(first)
    kept = []
    while not stopping():
        begun, since = time.time(), time.monotonic()
        line = ""
        try:
            why, line = await asyncio.wait_for(ask(kept), P["limit"])
        except asyncio.TimeoutError:
            why = "no answer in %s s" % P["limit"]
        except OSError as error:
            why = str(error) or type(error).__name__
        if why:
            kept.clear()
        out.write(json.dumps([kind, begun, round((time.monotonic() - since) * 1000, 2), why, line]) + "\n")
        await asyncio.sleep(pause)


async def fresh(kept, path="/"):
    """A page on a connection of its own."""
    reader, writer = await opened()
    try:
        writer.write(request(path, "Connection: close"))
        status, _, body = await answer(reader)
        return page_of(status, body)
    finally:
        writer.close()


async def reused(kept):
    """A page on a connection that is kept open, as a browser does."""
    reader, writer = kept.pop() if kept else await opened()
    writer.write(request("/"))
    status, goes_on, body = await answer(reader)
    if goes_on:
        kept.append((reader, writer))
    else:
        writer.close()
    return page_of(status, body)


async def slow(kept):
    """A page that the site takes its time for."""
    return await fresh(kept, "/slow?s=%s" % P["slow_seconds"])


async def post(kept):
    """A body that comes in pieces; the answer is its digest."""
    body = os.urandom(20000).hex().encode()
    reader, writer = await opened()
    try:
        writer.write(request("/echo", "Connection: close", "Content-Length: %d" % len(body), method="POST"))
        for number in range(10):
            writer.write(body[number * 4000 : number * 4000 + 4000])
            await writer.drain()
            await asyncio.sleep(P["post_seconds"] / 10)
        status, _, said = await answer(reader)
    finally:
        writer.close()
    good = status == 200 and said == hashlib.sha256(body).hexdigest()
    return "" if good else "status %s, not the digest: %s" % (status, said[:100]), ""


async def main():
    """All kinds at once."""
    with open(P["out"], "w", buffering=1) as out:
        kinds = {"fresh": fresh, "kept": reused, "slow": slow, "post": post}
        tasks = []
        for kind, (count, pause, spread) in P["kinds"].items():
            tasks += [repeat(out, kind, kinds[kind], pause, spread * number / count) for number in range(count)]
        await asyncio.gather(*tasks)


asyncio.run(main())
