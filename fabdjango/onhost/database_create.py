"""Make the site's database and its role, with a password that only this host knows; twice is once."""

import json
import os
import pwd
import secrets
import shutil
import socket
from urllib.parse import quote, unquote, urlsplit

P = PARAMETERS  # noqa: F821 - set by the line before this program
SERVERS = {"postgresql": PostgresqlServer, "mysql": MysqlServer}
LOG_IN = {"postgresql": ("psql", log_in_to_postgresql), "mysql": (mysql_client() or "mysql", log_in_to_mysql)}
os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


OWNER = P["owner"] if os.geteuid() == 0 and P["owner"] != "root" else ""
"""The account that owns the site, if it is another one than ours."""


def at_home(path):
    """A path with its ``~`` filled in: that of the account that owns the site."""
    if path == "~" or path.startswith("~/"):
        return os.path.expanduser("~" + OWNER) + path[1:]
    return path


P["store"] = at_home(P["store"])


def as_owner(deed, *given):
    """What ``deed`` returns, done as the account that owns the site: root follows no link that it has put there."""
    if not OWNER:
        return deed(*given)
    account = pwd.getpwnam(OWNER)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = {}
        try:
            os.close(reader)
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            answer["value"] = deed(*given)
        except BaseException as error:
            answer["error"] = "%s: %s" % (type(error).__name__, error)
        finally:
            with os.fdopen(writer, "wb") as file:
                file.write(json.dumps(answer).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = json.loads(file.read().decode())
    os.waitpid(child, 0)
    if "error" in answer:
        stop(
            "%s cannot be read or written: %s" % (P["store"], answer["error"]),
            "does the site's folder belong to %s?" % P["owner"],
        )
    return answer["value"]


def password_in(stored):
    """The password that is kept here for the role: under one of our variables, or in an address under an older name."""
    for name, kind in sorted(P["variables"].items(), key=lambda item: item[1] != "password"):
        if kind == "password" and stored.get(name):
            return stored[name]
        if kind == "url" and stored.get(name):
            return unquote(urlsplit(stored[name]).password or "")
    for value in stored.values():
        try:
            found = urlsplit(value)
            if found.scheme and found.password and unquote(found.username or "") == P["user"]:
                return unquote(found.password)
        except ValueError:
            continue
    return ""


def url_of(scheme, values):
    """The values as an address, as dj-database-url and django-environ read it."""
    words = {kind: quote(value, safe="") for kind, value in values.items()}
    return "%s://%s:%s@%s:%s/%s" % (
        scheme,
        words["user"],
        words["password"],
        values["host"],
        values["port"],
        words["name"],
    )


def store(values):
    """Keep the variables; the names of those that have changed."""
    wanted = {name: values[kind] for name, kind in P["variables"].items()}

    def write():
        before = read_values(P["store"])
        changed = [name for name in wanted if before.get(name) != wanted[name]]
        if changed:
            os.makedirs(os.path.dirname(P["store"]), exist_ok=True)
            write_values(P["store"], dict(before, **wanted))
        return changed

    return as_owner(write)


def on_this_host():
    """Database and role of the server that runs here; the variables, and what was done."""
    server = SERVERS[P["engine"]](P["user"], P["name"])
    known = password_in(as_owner(read_values, P["store"]))
    server.refuse_foreign(known)
    values = {
        "name": P["name"],
        "user": P["user"],
        "password": known or secrets.token_urlsafe(32),
        "host": "127.0.0.1",
        "port": server.port,
    }
    values["url"] = url_of(server.scheme, values)
    # Kept before it is given: whatever dies after this, the next run gives the role the password that is kept.
    changed = store(values)
    done = server.make(values["password"])
    why = LOG_IN[P["engine"]][1](values, {})
    if why:
        stop("the role %s cannot log in with its password: %s" % (P["user"], why), LISTENS[P["engine"]])
    return changed, done


LISTENS = {
    "postgresql": "let it listen on 127.0.0.1 (listen_addresses in postgresql.conf), and take passwords there, in pg_hba.conf: "
    "host all all 127.0.0.1/32 scram-sha-256",
    "mysql": "let it listen on 127.0.0.1: bind-address, and no skip-networking",
}


def elsewhere():
    """A database on another host: is it there, and does it let us in?"""
    values = P["values"]
    program, log_in = LOG_IN[P["engine"]]
    if shutil.which(program):
        why = log_in(values, P["options"])
    else:
        try:
            socket.create_connection((values["host"], int(values["port"])), 10).close()
            why = ""
        except OSError as error:
            why = str(error)
    if why:
        stop(
            "the database at %s:%s does not let this host in: %s" % (values["host"], values["port"], why),
            "see fabdjango.database.url, and what the server and its firewall allow this host",
        )
    return store(values), []


def file():
    """SQLite's file is made by whoever first opens it; here is its folder."""
    path = at_home(P["path"])
    folder = os.path.dirname(path)
    done = [] if os.path.isdir(folder) else ["made the folder %s" % folder]
    os.makedirs(folder, exist_ok=True)
    return store({"name": path, "url": "sqlite:///" + quote(path)}), done


def lacking():
    """What would be done, in words; what would be refused is."""
    try:
        kept = as_owner(read_values, P["store"]) if not OWNER or pwd.getpwnam(OWNER) else {}
    except KeyError:
        # The account is still to be made.
        kept = {}
    found = []
    if P["engine"] != "sqlite" and not P["values"]:
        # A server that is still to be installed has nothing.
        there = shutil.which("psql") if P["engine"] == "postgresql" else mysql_client()
        server = SERVERS[P["engine"]](P["user"], P["name"]) if there else None
        if server:
            server.refuse_foreign(password_in(kept))
        if not (server and server.role):
            found.append("make the role %s" % P["user"])
        if not (server and server.database):
            found.append("make the database %s" % P["name"])
    names = [name for name in P["variables"] if name not in kept]
    return found + (["keep %s in %s" % (", ".join(names), P["store"])] if names else [])


if P.get("look"):
    print(json.dumps({"lacking": lacking()}))
    raise SystemExit(0)
if P["engine"] == "sqlite":
    changed, done = file()
elif P["values"]:
    changed, done = elsewhere()
else:
    changed, done = on_this_host()
if changed:
    done.append(
        "kept %s in %s: the next release has %s"
        % (", ".join(changed), P["store"], "it" if len(changed) == 1 else "them")
    )
if done:
    for line in done:
        report("note", line)
else:
    report("unchanged", "the database is there, and its variables are")
