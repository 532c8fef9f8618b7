"""Make wheels again of all that is installed in a virtualenv; standard output is a tar of them and of their sums."""

import base64
import csv
import email
import glob
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import zipfile

P = PARAMETERS  # noqa: F821 - set by the line before this program
VENV = os.path.realpath(P["venv"])
PATHS = sysconfig.get_paths()
SITES = {os.path.realpath(PATHS[name]) for name in ("purelib", "platlib")}
SCRIPTS = os.path.realpath(PATHS["scripts"])
HEADERS = os.path.join(VENV, "include", "site", "python%d.%d" % sys.version_info[:2])
# What an installer writes about its own deed.
OF_THE_INSTALLER = {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"}
OF_THE_INSTALLER |= {"uv_cache.json", "uv_build.json"}
# Where the path of the Python is too long for a first line, or has a space, installers go by way of a shell.
BY_SHELL = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
DIRECT = re.compile(rb"#![^\n]*/" + re.escape(os.fsencode(os.path.basename(VENV))) + rb"/bin/python[0-9.]*")


class UnpackableError(Exception):
    """Something cannot be given away; the text says what and why."""


def below(path, folder):
    """True if ``path`` lies in ``folder``."""
    return path.startswith(folder + os.sep)


def portable(script):
    """A script as it was in its wheel: the installer has put the path of this Python into its first line."""
    found = BY_SHELL.match(script)
    return b"#!python\n" + script[found.end() :] if found else DIRECT.sub(b"#!python", script, count=1)


def digest_of(file):
    """SHA-256 of a file from its beginning, as bytes; it stands at its beginning again."""
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(1 << 20), b""):
        digest.update(chunk)
    file.seek(0)
    return digest


def written(digest):
    """A digest in the form of RECORD."""
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")


class Installed:
    """One distribution, by the folder that describes it."""

    def __init__(self, info):
        self.info = info
        self.site = os.path.dirname(info)
        self.stem = os.path.basename(info)[: -len(".dist-info")]
        self.dist = importlib.metadata.Distribution.at(info)
        self.name = "%s==%s" % (self.dist.metadata["Name"], self.dist.version)
        record = self.dist.read_text("RECORD")
        if not record:
            raise UnpackableError("%s has no list of its files" % self.name)
        direct = json.loads(self.dist.read_text("direct_url.json") or "{}")
        if direct.get("dir_info", {}).get("editable"):
            raise UnpackableError("%s is installed as editable" % self.name)
        self.record = record

    @property
    def file_name(self):
        """The name of the wheel; the host that gets it holds the tags against its own."""
        tags = email.message_from_string(self.dist.read_text("WHEEL") or "").get_all("Tag")
        if not tags:
            raise UnpackableError("%s does not say what it was built for" % self.name)
        parts = zip(*(tag.split("-") for tag in tags))
        name, _, version = self.stem.rpartition("-")
        words = [name.replace("-", "_"), version, *(".".join(sorted(set(part))) for part in parts)]
        return "-".join(words) + ".whl"

    def place(self, path):
        """Where a file stands in the wheel, or None if the installer makes it."""
        name = os.path.basename(path)
        data = self.stem + ".data"
        if below(path, self.site):
            made = name.endswith(".pyc") and os.path.basename(os.path.dirname(path)) == "__pycache__"
            made = made or (os.path.dirname(path) == self.info and name in OF_THE_INSTALLER)
            return None if made else os.path.relpath(path, self.site)
        if below(path, SCRIPTS):
            groups = ("console_scripts", "gui_scripts")
            made = name in {entry.name for entry in self.dist.entry_points if entry.group in groups}
            return None if made or name.endswith(".pyc") else "%s/scripts/%s" % (data, os.path.relpath(path, SCRIPTS))
        if below(path, HEADERS):
            return "%s/headers/%s" % (data, os.path.relpath(path, HEADERS).partition(os.sep)[2])
        if below(path, VENV):
            return "%s/data/%s" % (data, os.path.relpath(path, VENV))
        raise UnpackableError("%s has a file outside of the virtualenv: %s" % (self.name, path))

    def files(self):
        """The name in the wheel of every file, with its path and its digest as the installer wrote it down."""
        found = {}
        for row in csv.reader(io.StringIO(self.record)):
            path = os.path.normpath(os.path.join(self.site, row[0])) if row else ""
            name = self.place(path) if path else None
            if name:
                found[name] = (path, row[1])
        return sorted(found.items())

    def pack(self, target):
        """Write the wheel."""
        rows = []
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, (path, expected) in self.files():
                rows.append((name, *self.add(archive, name, path, expected)))
            record = os.path.basename(self.info) + "/RECORD"
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
            archive.writestr(entry(record, 0o644), text.getvalue())

    def add(self, archive, name, path, expected):
        """One file; its digest and its size."""
        try:
            source = open(path, "rb")
        except OSError as error:
            raise UnpackableError("%s lacks a file: %s: %s" % (self.name, path, error.strerror))
        with source:
            status = os.fstat(source.fileno())
            if below(path, SCRIPTS):
                source, expected = io.BytesIO(portable(source.read())), ""
            digest = digest_of(source)
            if expected.startswith("sha256=") and expected != written(digest):
                raise UnpackableError("%s was changed after it was installed: %s" % (self.name, path))
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            with archive.open(entry(name, status.st_mode, size), "w") as file:
                shutil.copyfileobj(source, file)
        return written(digest), size


def entry(name, mode, size=0):
    """A file of a wheel, without a time: the same files make the same wheel."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (0o100000 | mode & 0o777) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = size
    return info


def installed():
    """Everything that is in the virtualenv."""
    complete = os.stat(os.path.join(VENV, ".complete")).st_mtime_ns
    for site in sorted(SITES):
        for path in glob.glob(os.path.join(glob.escape(site), "*.eg[gi]*")):
            raise UnpackableError("%s is installed in a way that cannot be given away" % os.path.basename(path))
        for info in sorted(glob.glob(os.path.join(glob.escape(site), "*.dist-info"))):
            each = Installed(info)
            # By hand, for trying: the virtualenv is not any more what its requirements made it.
            if os.stat(os.path.join(info, "RECORD")).st_mtime_ns > complete:
                raise UnpackableError("%s was installed after the virtualenv was complete" % each.name)
            yield each


def add(tar, name, file):
    """One member."""
    info = tarfile.TarInfo(name)
    info.size = file.seek(0, os.SEEK_END)
    file.seek(0)
    tar.addfile(info, file)


# On the disk of the virtualenv, as /tmp may be memory; unlinked, so that a kill leaves nothing.
with tempfile.TemporaryFile(dir=os.path.dirname(VENV)) as whole:
    packages, sums = [], {}
    try:
        with tarfile.open(fileobj=whole, mode="w") as tar:
            for each in installed():
                with tempfile.TemporaryFile(dir=os.path.dirname(VENV)) as wheel:
                    each.pack(wheel)
                    wheel.seek(0)
                    sums[each.file_name] = digest_of(wheel).hexdigest()
                    add(tar, each.file_name, wheel)
                packages.append(each.name)
            listing = json.dumps({"packages": packages, "sums": sums}).encode()
            add(tar, "wheels.json", io.BytesIO(listing))
    except UnpackableError as error:
        # Nothing on standard output says so too.
        print(error, file=sys.stderr)
        sys.exit(0)
    whole.seek(0)
    shutil.copyfileobj(whole, sys.stdout.buffer)
