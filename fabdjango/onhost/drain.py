"""Wait until nobody waits for a socket any more: its queue of connections that were not accepted is empty."""

import os
import socket
import struct
import sys
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program

# From linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
UDIAG_SHOW_NAME, UDIAG_SHOW_RQLEN = 1, 16
UNIX_DIAG_NAME, UNIX_DIAG_RQLEN = 0, 4
LISTENING = 1 << 10  # TCP_LISTEN, as a bit of the states that are asked for


def attributes(data):
    """The attributes of a netlink message: number to bytes."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def waiting(path):
    """How many connections wait to be accepted at the unix socket ``path``; 0 if nobody listens there."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, LISTENING, 0, UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN, 0, 0)
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    link.settimeout(5)
    found = 0
    try:
        link.sendall(header + request)
        while True:
            data = link.recv(1 << 18)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise OSError("the kernel does not tell the queues of sockets")
                seen = attributes(data[32:length])
                name = seen.get(UNIX_DIAG_NAME, b"").split(b"\0")[0]
                if name == os.fsencode(path) and UNIX_DIAG_RQLEN in seen:
                    found += struct.unpack_from("=I", seen[UNIX_DIAG_RQLEN])[0]
                data = data[(length + 3) & ~3 :]
    finally:
        link.close()


began = time.monotonic()
quiet = 0
left = 0
while time.monotonic() - began < P["seconds"]:
    try:
        left = waiting(P["path"])
    except OSError as error:
        # A kernel without the module, or a container that forbids it: a second is what the queue gets.
        print("the queue of %s cannot be seen (%s)" % (P["path"], error))
        time.sleep(1)
        sys.exit(0)
    # A proxy may just be connecting, though it resolves the name and enters the queue in one call of the kernel: so it
    # has to be empty more than once.
    quiet = 0 if left else quiet + 1
    if quiet >= 3:
        sys.exit(0)
    time.sleep(0.01)
print("%d connections still waited for %s after %d s" % (left, P["path"], P["seconds"]))
