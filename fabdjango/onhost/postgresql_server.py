"""This host's own PostgreSQL, told by its superuser; a part, not a program."""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import subprocess

# Server and login: the names are data, COPY takes them as they are, and psql and format() do the quoting.
_PG_GIVEN = """\
CREATE TEMP TABLE given (name text, value text);
COPY given FROM STDIN;
%s\\.
SELECT value AS "user" FROM given WHERE name = 'user' \\gset
SELECT value AS "name" FROM given WHERE name = 'name' \\gset
SELECT value AS "password" FROM given WHERE name = 'password' \\gset
%s
"""
_PG_LOOK = """\
SELECT json_build_object(
  'port', current_setting('port'),
  'role', (SELECT json_build_object('login', rolcanlogin, 'password', rolpassword)
           FROM pg_authid WHERE rolname = :'user'),
  'database', (SELECT json_build_object(
      'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
      'open', has_database_privilege('public', oid, 'CONNECT') OR has_database_privilege('public', oid, 'TEMPORARY'))
    FROM pg_database WHERE datname = :'name'));
"""
_PG_CREATE_ROLE = "SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'user', :'password') \\gexec\n"
_PG_ALTER_ROLE = "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', :'user', :'password') \\gexec\n"
# A cluster of a host without a locale sorts by bytes, or cannot hold UTF-8 at all; C.UTF-8 is on every Debian.
_PG_CREATE_DATABASE = """\
SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' TEMPLATE template0', :'name', :'user')
  || CASE WHEN pg_encoding_to_char(encoding) = 'UTF8' AND datcollate NOT IN ('C', 'POSIX') THEN ''
     ELSE ' LC_COLLATE ''C.UTF-8'' LC_CTYPE ''C.UTF-8''' END
FROM pg_database WHERE datname = 'template1' \\gexec
"""
# Before PostgreSQL 15 whoever may connect may also make tables there, and other sites of the host have roles.
_PG_CLOSE = "SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', :'name') \\gexec\n"


def scram(password, salt, rounds):
    """What the server keeps of a password, so that the password itself is never sent to it and stands in no log."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.new(salted, b"Client Key", "sha256").digest()).digest()
    server = hmac.new(salted, b"Server Key", "sha256").digest()
    return "SCRAM-SHA-256$%d:%s$%s:%s" % (
        rounds,
        *(base64.b64encode(each).decode() for each in (salt, stored, server)),
    )


def is_of(kept, password, user):
    """Whether the server keeps this password already."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$.*", kept or "")
    if found:
        return scram(password, base64.b64decode(found.group(2)), int(found.group(1))) == kept
    return kept == "md5" + hashlib.md5((password + user).encode()).hexdigest()


class PostgresqlServer:
    """The role ``user`` and the database ``name`` on it."""

    scheme = "postgres"

    def __init__(self, user, name):
        self.user = user
        self.name = name
        if not shutil.which("psql"):
            stop("PostgreSQL is not installed on the host", "on the host, as root: apt-get install postgresql")
        found = json.loads(self.tell(_PG_LOOK))
        self.port = found["port"]
        self.role = found["role"]
        self.database = found["database"]

    def tell(self, commands, password=""):
        """What the superuser's psql answers to commands."""
        given = {"user": self.user, "name": self.name, "password": password}
        rows = "".join("%s\t%s\n" % (name, value.replace("\\", "\\\\")) for name, value in given.items())
        words = ["psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
        if os.geteuid() == 0:
            words = ["runuser", "-u", "postgres", "--", *words]
        done = subprocess.run(
            words,
            input=(_PG_GIVEN % (rows, commands)).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
        )
        if done.returncode:
            stop(
                "PostgreSQL on the host does not do as it is told: " + done.stderr.decode("utf-8", "replace").strip(),
                "does it run? on the host, as root: systemctl status 'postgresql*'; psql: runuser -u postgres -- psql",
            )
        return done.stdout.decode("utf-8", "replace").strip()

    def refuse_foreign(self, known):
        """Stop if the database or the role is somebody else's; ``known`` is the password that is kept on this host."""
        if self.database and self.database["owner"] != self.user:
            stop(
                "the database %s is there and belongs to %s, not to %s"
                % (self.name, self.database["owner"], self.user),
                "choose another fabdjango.database.name; or if it is the site's, leave it as it is, with "
                "fabdjango.database.engine: none, and give the project its address by env_file or secrets",
            )
        if self.role and not known:
            stop(
                "the role %s is there, and its password is not kept on this host: it may be somebody else's"
                % self.user,
                "choose another fabdjango.database.user; or if it is the site's, leave it as it is, with "
                "fabdjango.database.engine: none, and give the project its address by env_file or secrets",
            )
        if self.database and self.database["encoding"] != "UTF8":
            report("note", "the database %s is in %s, not in UTF-8" % (self.name, self.database["encoding"]))

    def make(self, password):
        """What is missing; what was done, in words."""
        done = []
        kept = scram(password, secrets.token_bytes(16), 4096) if password.isascii() else password
        if not self.role:
            self.tell(_PG_CREATE_ROLE, kept)
            done.append("made the role %s" % self.user)
        elif not self.role["login"] or not is_of(self.role["password"], password, self.user):
            self.tell(_PG_ALTER_ROLE, kept)
            done.append("gave the role %s the password that is kept here" % self.user)
        if not self.database:
            self.tell(_PG_CREATE_DATABASE)
            done.append("made the database %s" % self.name)
        if not self.database or self.database["open"]:
            self.tell(_PG_CLOSE)
            done.append("closed the database %s to other roles" % self.name)
        return done


def log_in_to_postgresql(values, options):
    """Why the database does not let the role in, or an empty string; the password goes by the environment."""
    words = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "name": "PGDATABASE"}
    env = dict(os.environ, PGCONNECT_TIMEOUT="10")
    env.update({variable: values[kind] for kind, variable in words.items() if values.get(kind)})
    env.update({"PG" + name.upper(): value for name, value in options.items() if name in ("sslmode", "sslrootcert")})
    done = subprocess.run(
        ["psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"],
        input=b"SELECT 1",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd="/",
    )
    return "" if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip()
