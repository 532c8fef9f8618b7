"""Where the host is in the network; a part, not a program."""

import re
import socket


def own_addresses():
    """The host's own addresses, without those of loopback and of a link alone."""
    found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text_of("/proc/net/fib_trie"))
    for line in text_of("/proc/net/if_inet6").splitlines():
        found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    return sorted({each for each in found if not each.startswith(("127.", "fe80:")) and each != "::1"})


def text_of(path):
    """A file of the kernel, or an empty text."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
