"""A PostgreSQL database of a project, into a file and back; a part, not a program."""

import os
import re
import subprocess
import tempfile

PG_VARIABLES = {
    "dbname": "PGDATABASE",
    "database": "PGDATABASE",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
"""What Django gives to its driver, as the programs of PostgreSQL read it; so nothing of it stands on a command line."""

# All that the role has goes, and all comes from the backup, in one transaction: there is no state between, and nothing of
# a newer schema is left over. A member of the owner's role would also drop its own right to connect, which does not come
# back. What the superuser has cannot be dropped like this: there everything in the database is.
_PG_BEGIN = """\
BEGIN;
SET LOCAL lock_timeout = '%ds';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SELECT txid_current();
SELECT rolsuper::text AS super, (to_regnamespace('public') IS NOT NULL)::text AS public,
  set_config('fabdjango.before', coalesce(datacl::text, ''), true) AS before
FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database() \\gset
\\if :super
SELECT format('DROP SCHEMA %%I CASCADE', nspname) FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' \\gexec
SELECT lo_unlink(oid) FROM pg_largeobject_metadata \\g /dev/null
\\else
DROP OWNED BY CURRENT_USER;
DO $$
BEGIN
  IF current_setting('fabdjango.before') <> coalesce((
      SELECT datacl::text FROM pg_database WHERE datname = current_database()), '')
    OR (to_regnamespace('public') IS NOT NULL AND NOT has_schema_privilege('public', 'CREATE'))
  THEN
    RAISE EXCEPTION 'the role %% is not the owner of the database: it would lose rights there that it cannot give itself again',
      current_user;
  END IF;
END $$;
\\endif
SELECT (:'public' = 'true' AND to_regnamespace('public') IS NULL)::text AS gone \\gset
\\if :gone
CREATE SCHEMA public;
\\endif
"""
_PG_NOT_OURS = re.compile(r"\d+; \d+ \d+ (SCHEMA - public |COMMENT - SCHEMA public |COMMENT - EXTENSION )")
_PG_RIGHTS_OF_PUBLIC = re.compile(r"\d+; \d+ \d+ ACL - SCHEMA public ")


class PostgresqlBackup:
    """The database behind a connection of Django's."""

    suffix = ".dump"

    def __init__(self, link):
        self.link = link
        for program in ("pg_dump", "pg_restore", "psql"):
            need(program, "postgresql-client")
        given = link.get_connection_params()
        self.env = dict(os.environ)
        self.env.update({PG_VARIABLES[name]: str(value) for name, value in given.items() if name in PG_VARIABLES})
        self.role = link.settings_dict["OPTIONS"].get("assume_role")

    def exists(self):
        """Whether there is anything to keep."""
        return True

    def ask(self, query, *values):
        """The first row of an answer."""
        with self.link.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchone()

    def size(self):
        """Bytes that a backup can have at most, about."""
        return self.ask("SELECT pg_database_size(current_database())")[0]

    def dump(self, path):
        """Write the file; why it failed, or an empty string."""
        words = ["pg_dump", "--format=custom", "--no-password", "--lock-wait-timeout=%ds" % P["lock_timeout"]]
        words += ["--role=" + self.role] if self.role else []
        status, _, said = run([*words, "--file=" + path], env=self.env)
        found = re.search(r"server version: (\d+)", said)
        if found and "mismatch" in said:
            said += (
                "\ncure: on the host, as root: apt-get install postgresql-client-%s (from apt.postgresql.org, if Debian has it not)"
                % found.group(1)
            )
        if "LOCK TABLE" in said and "timeout" in said:
            said += "\ncure: a table is locked for longer than fabdjango.django.lock_timeout: see pg_stat_activity, or try again"
        return "" if status == 0 else said or "pg_dump ended with status %d" % status

    def contents(self, path):
        """What of a backup is to be restored, as pg_restore lists it: not what belongs to the database's own owner."""
        status, listed, said = run(["pg_restore", "--list", path])
        if status:
            return None, said
        self.is_super = self.ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0]
        ours = self.ask("SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'public'")
        lines = [each for each in listed.splitlines() if not _PG_NOT_OURS.match(each)]
        if not (ours and ours[0]):
            lines = [each for each in lines if not _PG_RIGHTS_OF_PUBLIC.match(each)]
        return lines, ""

    def restore(self, path):
        """Put the backup in the place of all that is there, or change nothing; why it failed, or an empty string."""
        lines, said = self.contents(path)
        self.link.close()
        if lines is None:
            return said
        with tempfile.NamedTemporaryFile("w") as listing:
            listing.write("\n".join(lines) + "\n")
            listing.flush()
            return self._replace(path, listing.name)

    def _replace(self, path, listing):
        """What there is by what is in the file, in one transaction; why it failed, or an empty string."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            psql = subprocess.Popen(
                ["psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=dict(self.env, PGOPTIONS=self._options()),
                close_fds=False,
            )
            said, sent = "", False
            try:
                said = self._feed(psql, path, listing)
                if not said:
                    psql.stdin.write(b"COMMIT;\n")
                    sent = True
                    psql.stdin.close()
                    psql.wait()
            except BrokenPipeError:
                # It says itself why it has ended.
                pass
            finally:
                if not sent:
                    # Without the end of the transaction, what was sent so far is undone.
                    psql.kill()
                psql.wait()
            out.seek(0)
            err.seek(0)
            number = re.search(rb"^\d+$", out.read(), re.M)
            complaint = err.read().decode("utf-8", "replace").strip()
        if sent and (psql.returncode == 0 or (number and self._is_committed(int(number.group())))):
            return ""
        return self._words(complaint or said or "psql ended with status %d" % psql.returncode)

    def _options(self):
        given = self.env.get("PGOPTIONS", "")
        return "%s -c role=%s" % (given, self.role.replace("\\", "\\\\").replace(" ", "\\ ")) if self.role else given

    def _feed(self, psql, path, listing):
        """All but the end of the transaction, to psql; why it is not whole, or an empty string."""
        psql.stdin.write((_PG_BEGIN % P["lock_timeout"]).encode())
        words = ["pg_restore", *(() if self.is_super else ("--no-owner",)), "--use-list=" + listing, "--file=-", path]
        status, _, said = run(words, stdout=psql.stdin, env=self.env)
        return "" if status == 0 else said or "pg_restore ended with status %d" % status

    def _is_committed(self, number):
        """Whether the transaction came to its end although psql did not."""
        try:
            return self.ask("SELECT txid_status(%s)", number)[0] == "committed"
        finally:
            self.link.close()

    @staticmethod
    def _words(said):
        if "lock timeout" in said:
            said += "\ncure: something uses the database for longer than fabdjango.django.lock_timeout: stop it, or wait; then restore again"
        elif "not the owner" in said:
            said += "\ncure: as the superuser of the database: ALTER DATABASE … OWNER TO …; then restore again"
        elif "out of shared memory" in said:
            said += "\ncure: raise max_locks_per_transaction of the server; then restore again"
        return said
