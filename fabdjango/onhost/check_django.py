"""Start Django as the site does: its checks for deployment, and whether its databases can be written. Writes nothing."""

import json
import os
import re
import socket
import sys

from django.core import checks  # noqa: E402 - after setup
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction

SECONDS = 5
_HIDDEN = re.compile("secret|passw|key|token|dsn|url", re.I)


def hide(text):
    """``text`` without the values of secret settings: what a driver complains of may name them."""
    values = [value for name, value in os.environ.items() if _HIDDEN.search(name)]
    values += [str(each.get("PASSWORD") or "") for each in settings.DATABASES.values()]
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "********") if len(value) > 5 else text
    return text


def messages():
    """What the checks found: level, id, text, hint and what it is about."""
    try:
        found = checks.run_checks(include_deployment_checks=True)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fail_with_traceback("the checks cannot run")
    return [
        {
            "level": each.level,
            "id": each.id or "",
            "text": hide(str(each.msg)),
            "hint": hide(str(each.hint or "")),
            "about": str(getattr(getattr(each.obj, "_meta", None), "label", each.obj) or ""),
        }
        for each in found
        if not each.is_silenced()
    ]


def listens(values):
    """Why nothing takes connections at the address of a database server, or an empty string; a driver may wait for minutes."""
    host, port = str(values.get("HOST") or ""), str(values.get("PORT") or "")
    port = port or {"postgresql": "5432", "postgis": "5432", "mysql": "3306"}.get(
        values["ENGINE"].rpartition(".")[2], ""
    )
    if not host or host.startswith("/") or not port.isdigit():
        return ""
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except OSError as error:
        return "%s:%s: %s" % (host, port, error.strerror or error)
    return ""


def look_at_file(connection):
    """Of a file of SQLite: whether a transaction could write; one that would leave a trace by being opened is not opened."""
    path = os.path.abspath(str(connection.settings_dict["NAME"]))
    if ":memory:" in path or os.path.basename(path).startswith("file:"):
        return {}
    if not os.path.isfile(path):
        return {"error": "there is no file %s" % path, "missing": True}
    for each in (path, os.path.dirname(path)):
        if not os.access(each, os.W_OK):
            return {"error": "may not write %s" % each, "path": each}
    with open(path, "rb") as file:
        is_wal = file.read(19)[18:19] == b"\2"
    if is_wal and not os.path.exists(path + "-wal"):
        return {"note": "nobody has it open, and it was not opened either"}
    with connection.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
    return {}


def look_at_server(connection, writes):
    """A write that is rolled back, and whether migrations may make tables."""
    found = {}
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        if writes and connection.vendor in ("postgresql", "mysql"):
            cursor.execute("CREATE TEMPORARY TABLE fabdjango_check (id integer)")
            cursor.execute("INSERT INTO fabdjango_check VALUES (1)")
        if writes and connection.vendor == "postgresql":
            cursor.execute("SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE'), current_user")
            schema, may, user = cursor.fetchone()
            found = {} if may else {"schema": schema or "public", "user": user}
        transaction.set_rollback(True, using=connection.alias)
    return found


def look_at(alias):
    """What there is to say of one database: its vendor and place, and what is wrong with it."""
    connection = connections[alias]
    values = connection.settings_dict
    place = ":".join(str(values.get(each) or "") for each in ("HOST", "PORT")).strip(":")
    found = {"alias": alias, "vendor": connection.vendor, "name": str(values.get("NAME") or ""), "place": place}
    try:
        away = listens(values)
        if away:
            return dict(found, error=away)
        # A replica is there to be read.
        more = (
            look_at_file(connection)
            if connection.vendor == "sqlite"
            else look_at_server(connection, alias == "default")
        )
        return dict(found, **more)
    except Exception as error:
        return dict(found, error=hide(" ".join(str(error).split())) or type(error).__name__)
    finally:
        try:
            connection.close()
        except Exception:
            pass


def databases():
    """Every database of the settings that is one."""
    found = []
    for alias in connections:
        try:
            if settings.DATABASES[alias].get("ENGINE", "").rpartition(".")[2] not in ("", "dummy"):
                found.append(look_at(alias))
        except ImproperlyConfigured as error:
            found.append({"alias": alias, "vendor": "", "name": "", "place": "", "error": hide(str(error))})
    return found


sys.stdout.write(json.dumps({"messages": messages(), "databases": databases()}) + "\n")
