"""This host's own MariaDB or MySQL, told over root's socket; a part, not a program."""

# ruff: noqa: ARG001 - called by others
import os
import shutil
import subprocess

MY_HOSTS = ("localhost", "127.0.0.1")
"""Where the account comes from: which of the two the server sees depends on the driver and on its name resolution."""
# Names and passwords arrive as numbers, so that nothing has to be quoted here.
_MY_GIVEN = "SET @%s = CONVERT(X'%s' USING utf8mb4) COLLATE utf8mb4_bin;\n"
_MY_LOOK = r"""
SELECT @@port;
SELECT COUNT(*) FROM mysql.user WHERE User = @user;
SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = @name;
SELECT DISTINCT User FROM mysql.db WHERE REPLACE(Db, '\\', '') = @name;
"""
_MY_CREATE_DATABASE = "CONCAT('CREATE DATABASE `', REPLACE(@name, '`', '``'), '` CHARACTER SET utf8mb4')"
_MY_SET_PASSWORD = "CONCAT('{verb}', QUOTE(@user), '@', QUOTE(@host), ' IDENTIFIED BY ', QUOTE(@password))"
# Of a database's name, _ and % are patterns in a grant.
_MY_GRANT = (
    r"CONCAT('GRANT ALL PRIVILEGES ON `', REPLACE(REPLACE(REPLACE(@name, '_', '\\_'), '%', '\\%'), '`', '``'), "
    r"'{more}`.* TO ', QUOTE(@user), '@', QUOTE(@host))"
)
# What a backup is restored into before it takes the place of the database.
_MY_BESIDE = r"\\_fabdjango\\_%"


def mysql_client():
    """The client's name, or None."""
    return shutil.which("mariadb") or shutil.which("mysql")


class MysqlServer:
    """The account ``user`` and the database ``name`` on it."""

    scheme = "mysql"

    def __init__(self, user, name):
        self.user = user
        self.name = name
        if not mysql_client():
            stop(
                "neither MariaDB nor MySQL is installed on the host",
                "on the host, as root: apt-get install mariadb-server",
            )
        self.port, accounts, databases, *self.owners = self.tell(_MY_LOOK).split()
        self.role = accounts != "0"
        self.database = databases != "0"

    def tell(self, commands, **more):
        """What root's client answers to commands."""
        given = dict(more, user=self.user, name=self.name)
        head = "".join(_MY_GIVEN % (name, value.encode().hex()) for name, value in given.items())
        done = subprocess.run(
            [mysql_client(), "--batch", "--skip-column-names", "--default-character-set=utf8mb4"],
            input=(head + commands).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
        )
        if done.returncode:
            stop(
                "the database server on the host does not do as it is told: "
                + done.stderr.decode("utf-8", "replace").strip(),
                "does it run, and does it let root in by its socket? on the host, as root: mysql -e 'SELECT 1'",
            )
        return done.stdout.decode("utf-8", "replace").strip()

    def execute(self, expression, **more):
        """Run the statement that an expression of SQL gives."""
        self.tell("SET @statement = %s;\nPREPARE s FROM @statement;\nEXECUTE s;\n" % expression, **more)

    def refuse_foreign(self, known):
        """Stop if the database or the account is somebody else's; ``known`` is the password that is kept on this host."""
        if self.database and self.user not in self.owners:
            stop(
                "the database %s is there and belongs to %s, not to %s"
                % (self.name, " and ".join(self.owners) or "nobody", self.user),
                "choose another fabdjango.database.name; or if it is the site's, leave it as it is, with "
                "fabdjango.database.engine: none, and give the project its address by env_file or secrets",
            )
        if self.role and not known:
            stop(
                "the account %s is there, and its password is not kept on this host: it may be somebody else's"
                % self.user,
                "choose another fabdjango.database.user; or if it is the site's, leave it as it is, with "
                "fabdjango.database.engine: none, and give the project its address by env_file or secrets",
            )

    def make(self, password):
        """What is missing; what was done, in words."""
        values = {"host": MY_HOSTS[1], "port": self.port, "user": self.user, "password": password, "name": self.name}
        if self.role and self.database and not log_in_to_mysql(values, {}):
            return []
        done = ["gave its password to the account %s" % self.user if self.role else "made the account %s" % self.user]
        for host in MY_HOSTS:
            for verb in ("CREATE USER IF NOT EXISTS ", "ALTER USER "):
                self.execute(_MY_SET_PASSWORD.format(verb=verb), host=host, password=password)
        # The rights first: by them the next run knows whose it is, whatever dies here.
        for host in MY_HOSTS:
            for more in ("", _MY_BESIDE):
                self.execute(_MY_GRANT.format(more=more), host=host)
        if not self.database:
            self.execute(_MY_CREATE_DATABASE)
            done.append("made the database %s" % self.name)
        return done


def log_in_to_mysql(values, options):
    """Why the database does not let the account in, or an empty string; the password goes by the environment."""
    done = subprocess.run(
        [
            mysql_client(),
            "--no-defaults",
            "--connect-timeout=10",
            "--protocol=TCP",
            "--host=" + values["host"],
            "--port=" + values["port"],
            "--user=" + values["user"],
            "--database=" + values["name"],
        ],
        input=b"SELECT 1",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=dict(os.environ, MYSQL_PWD=values["password"]),
        cwd="/",
    )
    return "" if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip()
