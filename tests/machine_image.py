"""
The Debian images the test hosts boot from, and what of this machine they are told.

An image is a folder made by mmdebstrap and kept in the user's cache; it holds nothing of the machine that built it.
The way out to the package registries (mirrors, proxies, certificates, name servers, pip's index) is looked up anew
by every process, and is written only into the hosts' own layers.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import functools
import hashlib
import html
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "DEBIAN_PACKAGES",
    "DEPLOY_ID",
    "SUITES",
    "VARIANTS",
    "MachineError",
    "apt_options",
    "apt_sources",
    "build_image",
    "ca_bundle",
    "command",
    "locked",
    "missing_tools",
    "pip_settings",
    "proxies",
    "resolv_conf",
    "shared_folders",
]

SUITES = ("bookworm", "trixie")
DEPLOY_ID = 1000  # uid and gid of the account deploy
GUEST_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
#: What .ci/run installs. Debian 12 has the keys of trixie since debian-archive-keyring 2023.3+deb12u1.
DEBIAN_PACKAGES = (*dict.fromkeys(TOOLS.values()), "debian-archive-keyring")

BARE = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3"),
    *("ca-certificates", "iproute2", "curl", "procps"),
)
PREPARED = (*BARE, "git", "supervisor", "nginx", "wrk", "python3-venv", "python3-dev", "gcc", "libc6-dev")
#: bare lacks git and python3-venv on purpose: tests of error messages need to see them missing.
VARIANTS = {"bare": BARE, "prepared": PREPARED}

# Nobody reads manuals on a test host; leaving them out saves a fifth of the time and of the space.
UNPACKING = ("force-unsafe-io", *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")))

# The masked units would start apt behind a test's back, or wait for a network that is already there.
FINISHING = """
set -eu
chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash deploy
printf 'deploy ALL=(ALL:ALL) NOPASSWD: ALL\\n' > "$1/etc/sudoers.d/deploy"
chmod 0440 "$1/etc/sudoers.d/deploy"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/apt/apt.conf.d/99mmdebstrap"
printf '%s\\n' \
    'HostKey /etc/ssh/ssh_host_ed25519_key' 'HostKey /etc/ssh/ssh_host_ecdsa_key' \
    'LogLevel VERBOSE' 'PasswordAuthentication no' 'UseDNS no' \
    > "$1/etc/ssh/sshd_config.d/fabdjango-tests.conf"
mkdir -p "$1/var/log/journal"
units="$1/etc/systemd/system"
for unit in apt-daily.timer apt-daily-upgrade.timer console-getty.service systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$units/$unit"
done
mkdir -p "$units/multi-user.target.wants"
ln -sf /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/"
rm -f "$units/multi-user.target.wants/nginx.service"
"""

PIP_KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout", "retries")
PROXY_NAMES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
BUNDLE_NAMES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CAP_SYS_ADMIN = 21


class MachineError(Exception):
    """A test host, or what it stands on, did not do what it was asked to."""


def command(
    *words: str | Path, given: str | None = None, pass_fds: Sequence[int] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """
    Run a program of this machine to its end, with `given` as its standard input (none: empty).

    Raises MachineError with the last lines of its output if it fails and `check` is set.
    """
    paths = [*os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]
    done = subprocess.run(
        [str(word) for word in words],
        input=given or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PATH": ":".join(paths), "LC_ALL": "C.UTF-8"},
        pass_fds=pass_fds,
        check=False,
    )
    if check and done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        message = f"{' '.join(done.args)}\nfailed with exit status {done.returncode}:\n{tail}"
        raise MachineError(message)
    return done


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold an exclusive lock on the file `path` (made if missing); gives its file descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def missing_tools() -> str:
    """Tell in one line why this machine cannot boot hosts; an empty string when it can."""
    if platform.system() != "Linux":
        return f"test hosts need Linux, this is {platform.system()}"
    if os.geteuid() != 0:
        return "test hosts need root: systemd-nspawn, overlayfs and nftables do"
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not (capabilities and int(capabilities[1], 16) >> CAP_SYS_ADMIN & 1):
        return "test hosts need CAP_SYS_ADMIN, which this container withholds"
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = {package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    if missing:
        return f"test hosts need more Debian packages: apt-get install {' '.join(sorted(missing))}"
    return ""


def build_image(suite: str, variant: str = "prepared") -> Path:
    """
    Make the image of a Debian suite unless it is in the cache already, and give its folder.

    `suite` is one of SUITES, `variant` a key of VARIANTS. A changed recipe makes a new image beside the old one.
    The folder gets its name only when it is complete, so what a killed build leaves is never booted. Raises
    MachineError.
    """
    if suite not in SUITES or variant not in VARIANTS:
        message = f"no image {suite} {variant}: there is {', '.join(SUITES)} in {', '.join(VARIANTS)}"
        raise MachineError(message)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fabdjango" / "hosts"
    recipe = repr((suite, VARIANTS[variant], UNPACKING, FINISHING, platform.machine()))
    image = cache / f"{suite}-{variant}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if image.is_dir():
        return image
    # mmdebstrap inherits the lock: when only we are killed, the next build waits for it to end.
    with locked(cache / f"{image.name}.lock") as lock:
        if not image.is_dir():
            unfinished = cache / f"{image.name}.unfinished"
            command("rm", "-rf", "--one-file-system", "--", unfinished)
            command(*_mmdebstrap(suite, variant, unfinished), pass_fds=[lock])
            unfinished.rename(image)
    return image


def _mmdebstrap(suite: str, variant: str, target: Path) -> list[str]:
    """Say the words of the mmdebstrap command that makes an image in the folder `target`."""
    options = [*apt_options(), *apt_options(r"Acquire::https?::(.*::)?CaInfo")]
    # In a mount namespace of its own: a killed mmdebstrap leaves /dev, /proc and /sys mounted in the folder.
    return [
        *("unshare", "--mount", "--propagation=private"),
        *("mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase"),
        f"--include={','.join(VARIANTS[variant])}",
        *(f"--aptopt={option}" for option in options),
        *(f"--dpkgopt={option}" for option in UNPACKING),
        f"--customize-hook={FINISHING}",
        *(suite, str(target), *apt_sources(suite)),
    ]


@functools.cache
def apt_sources(suite: str) -> tuple[str, ...]:
    """
    Give the lines of sources.list for a Debian suite from the mirrors this machine's apt uses.

    Empty when this machine is no Debian, or its lists were never fetched: mmdebstrap knows the public mirrors.
    """
    targets = command(
        *("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"),
        *("Created-By: Packages", "Component: main"),
        check=False,
    )
    lines = []
    for line in targets.stdout.splitlines() if targets.returncode == 0 else []:
        found = re.fullmatch(r"Debian [a-z]+(|-updates|-security) (\S+)", line)
        if found:
            lines.append(f"deb [signed-by={KEYRING}] {found[2]} {suite}{found[1]} main")
    return tuple(dict.fromkeys(lines))


@functools.cache
def apt_options(wanted: str = r"Acquire::(https?::(.*::)?Proxy(::.*)?|Check-(Date|Valid-Until))") -> tuple[str, ...]:
    """Give this machine's apt options whose whole name matches `wanted`, in the form of a line of apt.conf."""
    dump = command("apt-config", "dump", "--no-empty", "--format", "%f\t%v%n", "Acquire", check=False)
    pairs = [line.split("\t", 1) for line in dump.stdout.splitlines() if "\t" in line]
    return tuple(f'{name} "{value}";' for name, value in pairs if re.fullmatch(wanted, name))


def ca_bundle() -> Path | None:
    """Give the file of certificates this machine trusts, if there is one."""
    places = [*filter(None, map(os.environ.get, BUNDLE_NAMES)), _pip_values().get("cert", ""), GUEST_BUNDLE]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def proxies() -> dict[str, str]:
    """Give the proxy variables of our environment; one that points at a loopback address is of no use in a host."""
    return {name: os.environ[name] for name in PROXY_NAMES if os.environ.get(name)}


def resolv_conf() -> str:
    """Give a resolv.conf that works from another network namespace: never a stub on a loopback address."""
    text = ""
    for path in map(Path, ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")):
        text = path.read_text() if path.is_file() else text
        if re.search(r"^nameserver\s+(?!127\.|::1\b)", text, re.MULTILINE):
            break
    return text


def pip_settings() -> dict[str, str]:
    """
    Give the files, by path, that make pip and uv in a host use the index of this machine.

    uv reads no pip.conf, so it gets the same in its own words. An index that needs a password hands it on to the
    hosts, where every account can read it.
    """
    values = _pip_values()
    kept = {"cert": GUEST_BUNDLE, **{key: values[key] for key in PIP_KEYS if key in values}}
    pip = "".join(f"{key} = {f'{chr(10)}    '.join(value.split())}\n" for key, value in kept.items())
    links = ", ".join(f'"{word}"' for word in values.get("find-links", "").split())
    uv = f'system-certs = true\nindex-strategy = "unsafe-best-match"\nfind-links = [{links}]\n'
    for key, more in (("extra-index-url", ""), ("index-url", "default = true\n")):
        uv += "".join(f'[[index]]\nurl = "{url}"\n{more}' for url in values.get(key, "").split())
    return {"/etc/pip.conf": f"[global]\n{pip}", "/etc/uv/uv.toml": uv}


@functools.cache
def shared_folders() -> tuple[Path, ...]:
    """Give the folders of this machine that its pip takes packages from; hosts see them read-only."""
    values = _pip_values()
    folders = []
    for key in ("index-url", "extra-index-url", "find-links"):
        for word in values.get(key, "").split():
            place = Path(unquote(urlsplit(word).path) if word.startswith("file://") else word)
            if place.is_absolute() and place.is_dir():
                folders += [place] if key == "find-links" else [place, *_linked_folder(place)]
    return tuple(dict.fromkeys(folders))


def _linked_folder(index: Path) -> list[Path]:
    """Give the folder that holds the files of a local index, which its pages often link to outside of it."""
    page = next(index.glob("*/index.html"), None)
    link = re.search(r'href="([^"#:]+)', page.read_text()) if page else None
    return [(page.parent / unquote(html.unescape(link[1]))).resolve().parent] if page and link else []


@functools.cache
def _pip_values() -> dict[str, str]:
    """Read this machine's pip configuration: files first, then the environment, which wins, as in pip."""
    for words in ((sys.executable, "-m", "pip"), ("pip",), ("python3", "-m", "pip")):
        if shutil.which(words[0]):
            listed = command(*words, "config", "list", check=False)
            if listed.returncode == 0:
                return _read_pip_config(listed.stdout)
    return {}


def _read_pip_config(text: str) -> dict[str, str]:
    """Read the output of `pip config list`: option names without their section, and their values."""
    pairs = re.findall(r"^(global|:env:)\.([a-z-]+)=('.*'|\".*\")$", text, re.MULTILINE)
    values = {name: str(ast.literal_eval(value)) for section, name, value in sorted(pairs, reverse=True)}
    if "default-timeout" in values:
        values["timeout"] = values.pop("default-timeout")
    return values
