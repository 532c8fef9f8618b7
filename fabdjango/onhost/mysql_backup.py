"""A MariaDB or MySQL database of a project, into a file and back; a part, not a program."""

import gzip
import os
import shutil
import subprocess
import tempfile


class MysqlBackup:
    """The database behind a connection of Django's."""

    suffix = ".sql.gz"

    def __init__(self, link):
        self.link = link
        self.client = shutil.which("mariadb") or shutil.which("mysql")
        self.dumper = shutil.which("mariadb-dump") or shutil.which("mysqldump")
        if not (self.client and self.dumper):
            stop("mysqldump is not installed on the host", "on the host, as root: apt-get install mariadb-client")
        words, env = link.client.settings_to_cmd_args_env(link.settings_dict, [])
        self.words = [word for word in words[1:] if word.startswith("--")]
        self.env = dict(os.environ, **(env or {}))
        self.name = self.ask("SELECT DATABASE()")[0][0]

    def exists(self):
        """Whether there is anything to keep."""
        return True

    def ask(self, query, *values):
        """All rows of an answer."""
        with self.link.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else ()

    def size(self):
        """Bytes that a backup can have at most, about."""
        found = self.ask("SELECT SUM(data_length) FROM information_schema.tables WHERE table_schema = DATABASE()")
        return int(found[0][0] or 0)

    def dump(self, path):
        """Write the file; why it failed, or an empty string."""
        words = [self.dumper, *self.words, "--single-transaction", "--quick", "--routines", "--no-tablespaces"]
        with tempfile.TemporaryFile() as err, gzip.open(path, "wb", 6) as out:
            dumper = subprocess.Popen(
                [*words, self.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                env=self.env,
                close_fds=False,
            )
            try:
                shutil.copyfileobj(dumper.stdout, out, 1 << 20)
            except BaseException:
                dumper.kill()
                raise
            finally:
                dumper.wait()
            err.seek(0)
            said = err.read().decode("utf-8", "replace").strip()
        return "" if dumper.returncode == 0 else said or "mysqldump ended with status %d" % dumper.returncode

    def restore(self, path):
        """
        Put the backup in the place of all that is there, or change nothing; why it failed, or an empty string.

        There are no transactions for tables: it is restored beside the database, and one statement exchanges all tables.
        """
        fresh, old = ("%s_fabdjango_%s" % (self.name[:40], each) for each in ("new", "old"))
        try:
            charset = self.ask("SELECT @@character_set_database, @@collation_database")[0]
            for each in (fresh, old):
                self.ask("DROP DATABASE IF EXISTS %s" % quoted(each))
                self.ask("CREATE DATABASE %s CHARACTER SET %s COLLATE %s" % (quoted(each), *charset))
        except Exception as error:
            return (
                "there is no right to make a database beside this one, in which the backup is restored first: %s\n"
                "cure: as the superuser of the database: GRANT ALL ON `%s\\_fabdjango\\_%%`.* TO …; then restore again"
                % (error, self.name[:40])
            )
        try:
            said = self._fill(fresh, path) or self._exchange(fresh, old)
        finally:
            for each in (fresh, old):
                self.ask("DROP DATABASE IF EXISTS %s" % quoted(each))
        return said

    def _fill(self, name, path):
        with tempfile.TemporaryFile() as err:
            client = subprocess.Popen(
                [self.client, *self.words, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=err,
                env=self.env,
                close_fds=False,
            )
            try:
                with gzip.open(path, "rb") as file:
                    shutil.copyfileobj(file, client.stdin, 1 << 20)
                client.stdin.close()
            except BrokenPipeError:
                pass
            except BaseException:
                client.kill()
                raise
            finally:
                client.wait()
            err.seek(0)
            said = err.read().decode("utf-8", "replace").strip()
        return "" if client.returncode == 0 else said or "the client ended with status %d" % client.returncode

    def _exchange(self, fresh, old):
        odd = self._odd(fresh) + self._odd(self.name)
        if odd:
            return (
                "views, triggers and routines cannot be exchanged in one go: %s\n"
                "cure: stop the site, and restore by hand: zcat BACKUP | mysql %s" % (", ".join(odd[:5]), self.name)
            )
        away = [(self.name, old, name) for name in self._tables(self.name)]
        here = [(fresh, self.name, name) for name in self._tables(fresh)]
        if not here:
            return "the backup holds no table"
        moves = ["%s.%s TO %s.%s" % tuple(map(quoted, (a, name, b, name))) for a, b, name in away + here]
        try:
            self.ask("SET SESSION lock_wait_timeout = %d" % P["lock_timeout"])
            self.ask("RENAME TABLE " + ", ".join(moves))
        except Exception as error:
            return str(error)
        return ""

    def _tables(self, name):
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type <> 'VIEW' ORDER BY 1"
        return [row[0] for row in self.ask(query, name)]

    def _odd(self, name):
        query = (
            "SELECT table_name FROM information_schema.views WHERE table_schema = %s"
            " UNION ALL SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s"
            " UNION ALL SELECT routine_name FROM information_schema.routines WHERE routine_schema = %s"
        )
        return [row[0] for row in self.ask(query, name, name, name)]


def quoted(name):
    """A name as SQL has it."""
    return "`%s`" % name.replace("`", "``")
