"""Apply migrations, or reverse those that an older release lacks, under a lock of the database; the last line is JSON."""

# ruff: noqa: ARG001, ARG002 - called by others, or one of several of the same form
import fcntl
import hashlib
import json
import os
import re
import signal
import sys
import time

from django.core import management
from django.db.backends.signals import connection_created

P = PARAMETERS  # noqa: F821 - set by the line before this program
REVERSE = P["action"] == "reverse"
answer = {"result": "failed", "migrations": [], "failed": "", "waited": 0.0, "notes": []}


def terminated(number, frame):
    """End as after an error, so that what was done is written down."""
    raise SystemExit("stopped by a signal")


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, terminated)


def note(text):
    """Say something that is no failure, now and in the answer."""
    answer["notes"].append(text)
    print(text, flush=True)


# --- the lock ----------------------------------------------------------------


class PostgresLock:
    """
    An advisory lock, held by a transaction on a session of its own, and so freed when that session ends.

    By a transaction, as a pooler may hand the next statement of a session to another one.
    """

    def __init__(self, link):
        self.session = link.copy()
        self.session.settings_dict.setdefault("OPTIONS", {}).pop("pool", None)
        self.session.set_autocommit(False)
        # In any other the transaction keeps a snapshot, and CREATE INDEX CONCURRENTLY waits for it for ever.
        self.ask("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self.set_local("application_name", ("fabdjango migrate, " + P["by"])[:63])
        # It is idle for as long as the migrations take.
        self.set_local("idle_in_transaction_session_timeout", "0")
        if self.session.pg_version >= 170000:
            self.set_local("transaction_timeout", "0")
        digest = hashlib.sha256(("%s\0%s" % (P["project"], self.ask("SELECT current_database()")[0])).encode()).digest()
        self.key = int.from_bytes(digest[:8], "big", signed=True)

    def ask(self, query, *values):
        """The first row of an answer, if there is one."""
        with self.session.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchone() if cursor.description else None

    def set_local(self, name, value):
        """Set something until the lock is freed."""
        self.ask("SELECT set_config(%s, %s, true)", name, value)

    def take(self):
        """Try once."""
        return self.ask("SELECT pg_try_advisory_xact_lock(%s::bigint)", self.key)[0]

    def holder(self):
        """Who holds it, in words."""
        found = self.ask(
            "SELECT a.pid, a.application_name, a.client_addr::text, a.backend_start::timestamp(0)::text"
            " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND l.classid::bigint = %s AND l.objid::bigint = %s",
            (self.key >> 32) & 0xFFFFFFFF,
            self.key & 0xFFFFFFFF,
        )
        if not found:
            return "unknown"
        return "session %s of the database, %s, from %s, since %s" % (
            found[0],
            found[1] or "no name",
            found[2] or "a local socket",
            found[3],
        )

    def free(self):
        """Let the next one have it."""
        self.session.close()

    @staticmethod
    def limit(link, seconds):
        """A statement waits no longer than this for a table; it ends when we do."""
        with link.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", ["%ds" % seconds])
            if link.pg_version >= 140000:
                try:
                    cursor.execute("SET client_connection_check_interval = '1s'")
                except Exception:
                    # Not every system can look whether the other end is there.
                    pass

    def blockers(self, table):
        """Who holds a lock on the table, in words."""
        self.session.rollback()
        with self.session.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT a.pid, a.application_name, a.client_addr::text, a.state, left(a.query, 80)"
                " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
                " WHERE l.granted AND l.relation = to_regclass(%s) AND a.pid <> pg_backend_pid()",
                ['"%s"' % table],
            )
            return [
                "session %s, %s, from %s, %s: %s" % (pid, name or "no name", place or "a local socket", state, query)
                for pid, name, place, state, query in cursor.fetchall()
            ]


class MysqlLock:
    """A named lock, held by a session of its own, and so freed when that session ends."""

    def __init__(self, link):
        self.session = link.copy()
        database = self.ask("SELECT DATABASE()")[0]
        self.key = "fabdjango:" + hashlib.sha256(("%s\0%s" % (P["project"], database)).encode()).hexdigest()[:40]
        # The holder must not lose it for being idle while a long migration runs.
        self.ask("SET SESSION wait_timeout = 604800")

    def ask(self, query, *values):
        """The first row of an answer, if there is one."""
        with self.session.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchone() if cursor.description else None

    def take(self):
        """Try once."""
        return self.ask("SELECT GET_LOCK(%s, 0)", self.key)[0] == 1

    def holder(self):
        """Who holds it, in words."""
        found = self.ask(
            "SELECT id, user, host FROM information_schema.processlist WHERE id = IS_USED_LOCK(%s)", self.key
        )
        return "connection %s of the database, %s, from %s" % (*found[:2], found[2] or "?") if found else "unknown"

    def free(self):
        """Let the next one have it."""
        self.session.close()

    @staticmethod
    def limit(link, seconds):
        """A statement waits no longer than this for a table or a row."""
        with link.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = %d" % seconds)
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %d" % seconds)

    def blockers(self, table):
        """Nobody tells without more rights than a site has."""
        return []


class FileLock:
    """A lock of a file in the site's run folder, as the database is a file of this host; freed when we end."""

    def __init__(self, link):
        self.path = P["lock_file"]
        self.file = None
        os.makedirs(os.path.dirname(self.path), exist_ok=True)

    def take(self):
        """Try once."""
        if self.file is None:
            self.file = open(self.path, "a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self.file.truncate(0)
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.file.write("process %d on this host, %s, since %s\n" % (os.getpid(), P["by"], since))
        self.file.flush()
        return True

    def holder(self):
        """Who holds it, in words."""
        try:
            with open(self.path) as file:
                return file.read().strip() or "unknown"
        except OSError:
            return "unknown"

    def free(self):
        """Let the next one have it."""
        self.file.close()

    @staticmethod
    def limit(link, seconds):
        """A statement waits no longer than this for the file of the database."""
        with link.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = %d" % (seconds * 1000))

    def blockers(self, table):
        """Nobody tells."""
        return []


LOCKS = {"postgresql": PostgresLock, "mysql": MysqlLock, "sqlite": FileLock}


def take_lock(link):
    """The lock, won; or the end of the program."""
    kind = LOCKS.get(link.vendor)
    if kind is None:
        note("no lock: fabdjango knows none for %s; do not migrate from two places at once" % link.vendor)
        return None
    lock = kind(link)
    began = time.monotonic()
    told = False
    while not lock.take():
        waited = time.monotonic() - began
        if waited >= P["lock_timeout"]:
            who = lock.holder()
            lock.free()
            end_early(
                "another migration of this database is under way, and did not end in %d seconds: %s"
                % (P["lock_timeout"], who),
                "deploy again when it has ended; or set fabdjango.django.lock_timeout above its time",
            )
        if not told:
            print("waiting for another migration of this database to end: %s" % lock.holder(), flush=True)
            told = True
        time.sleep(0.2)
    answer["waited"] = round(time.monotonic() - began, 1) if told else 0.0
    return lock


def end_early(what, cure=""):
    """Fail, with nothing done."""
    sys.stdout.flush()
    print(what)
    print("the database is as it was")
    if cure:
        print("cure: " + cure)
    print(json.dumps(answer))
    sys.exit(1)


# --- the mark ---------------------------------------------------------------


def begin(planned):
    """Leave a mark of what is about to be done, so that the next one can tell what became of it after a kill -9."""
    mark = {"planned": planned, "reverse": REVERSE, "entry": P["entry"]}
    with open(P["mark"] + ".new", "w") as file:
        json.dump(mark, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(P["mark"] + ".new", P["mark"])


def finish_for_the_dead():
    """Write into the journal what a process has done that was killed before it could; under the lock."""
    try:
        with open(P["mark"]) as file:
            mark = json.load(file)
    except (OSError, ValueError):
        return
    names = [name for _, name in rows()]
    gone = mark["reverse"]
    done = [name for name in mark["planned"] if (name in names) != gone]
    if done:
        result = "reversed" if gone else "applied"
        write_journal(P["journal"], dict(mark["entry"], result=result, migrations=done, note="the process was killed"))
        note("an earlier process was killed after it had %s %s" % (result, ", ".join(done)))
    os.unlink(P["mark"])


def rows():
    """What the database says that it has; asked on a connection that a failed transaction has not spoilt."""
    link.close()
    return applied(link)


# --- the work ----------------------------------------------------------------


def last_statement(execute, sql, params, many, context):
    """Remember what the database was asked last, for the words about a failure."""
    try:
        return execute(sql, params, many, context)
    except Exception:
        statement.append(sql if isinstance(sql, str) else str(sql))
        raise


def words_of(error):
    """What went wrong, and the cure, in words."""
    text = str(error).strip() or type(error).__name__
    cause = error.__cause__
    # PostgreSQL may say it in any language.
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    waited = code == "55P03" or re.search(r"Lock wait timeout|database (table )?is locked", text)
    if not waited:
        return "%s: %s" % (type(error).__name__, text.splitlines()[0]), "mend the migration, then deploy again"
    sql = statement[-1] if statement else ""
    # SQLite has one lock for all tables.
    table = re.search(
        r'(?:TABLE|INTO|UPDATE|FROM|ON)\s+(?:ONLY\s+)?["`](\w+)["`]', "" if link.vendor == "sqlite" else sql
    )
    what = "waited %d seconds for a lock of %s, in vain: %s" % (
        P["lock_timeout"],
        "the table " + table.group(1) if table else "the database",
        sql[:200] or text,
    )
    others = []
    if lock and table:
        try:
            others = lock.blockers(table.group(1))
        except Exception:
            pass
    return (
        "\n".join([what, *("it is held by " + each for each in others)]),
        "end what holds it, or deploy when less is going on; see fabdjango.django.lock_timeout",
    )


def remember(executor):
    """Which migrations may stay half-way, for the words about a failure."""
    not_atomic.update(label(each) for each in executor.loader.disk_migrations.values() if not each.atomic)


def plan_forwards():
    """The migrations to apply; ends the program if one is among them that nobody has been told of."""
    executor = MigrationExecutor(link)
    remember(executor)
    plan = [label(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    if P["expected"] is not None:
        surprises = [name for name in plan if name not in P["expected"]]
        if surprises:
            end_early(
                "the plan has changed since it was shown: it would also apply %s" % ", ".join(surprises),
                "deploy again, to see the plan as it is now",
            )
        others = [name for name in P["expected"] if name not in plan]
        if others:
            note("applied already by another process: %s" % ", ".join(others))
    return plan


def apply(plan):
    """As manage.py migrate does it."""
    management.call_command("migrate", interactive=False, verbosity=1, stdout=sys.stdout)


def plan_backwards():
    """The migrations to reverse, looked at once more; ends the program if one must not be."""
    executor = MigrationExecutor(link)
    remember(executor)
    if not P["target_known"] and executor.loader.applied_migrations:
        end_early("the older release does not say which migrations it has", "deploy its commit again")
    found = reversal(executor, link, P["target_known"])
    plan = ["%s.%s" % (each["app"], each["name"]) for each in found]
    if P["expected"] is not None:
        surprises = [name for name in plan if name not in P["expected"]]
        if surprises:
            end_early(
                "the plan has changed since it was shown: it would also reverse %s" % ", ".join(surprises),
                "roll back again, to see the plan as it is now",
            )
    bad = [each["reason"] for each in found if not each["reversible"]]
    if bad:
        end_early(
            "these migrations must not be reversed:\n" + "\n".join(bad),
            "roll back the code alone, if it can live with the database as it is; or deploy a commit that mends the new one",
        )
    return plan


def reverse(plan):
    """Newest first; each is told as it goes."""

    def progress(action, migration=None, fake=False):
        if action == "unapply_start":
            print("  Unapplying %s..." % label(migration), end="", flush=True)
        elif action == "unapply_success":
            print(" OK", flush=True)

    executor = MigrationExecutor(link, progress)
    executor.loader.check_consistent_history(link)
    order = [(migration, True) for migration in steps_back(executor, P["target_known"])[0]]
    executor.migrate([], plan=order)


link = connections["default"]
statement = []
not_atomic = set()
lock = None


def prepare_session(sender, connection, **more):
    """Every new session of ours waits only so long for a lock."""
    if connection.alias == "default" and connection is link and lock:
        lock.limit(connection, P["lock_timeout"])


def work():
    """The exit status."""
    global lock
    if not has_database("default"):
        note("no migrations: the project has no database")
        answer["result"] = "unchanged"
        return 0
    try:
        lock = take_lock(link)
        link.close()
        connection_created.connect(prepare_session)
        finish_for_the_dead()
        plan = plan_backwards() if REVERSE else plan_forwards()
    except Exception:
        try:
            print("the database is as it was")
            fail_about_migrations("the database")
        finally:
            print(json.dumps(answer))
    done = "reversed" if REVERSE else "applied"
    if not plan and REVERSE:
        answer["result"] = "unchanged"
        return 0
    try:
        # Where a line cannot be written later, nothing is begun.
        os.close(os.open(P["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
        if plan:
            begin(plan)
    except OSError as error:
        end_early("the journal cannot be written: %s" % error, "make room on the host, or give the owner the folder")
    before = rows()
    problem = cure = None
    try:
        with link.execute_wrapper(last_statement):
            (reverse if REVERSE else apply)(plan)
    except BaseException as error:
        # A project's own exit is a failure too, and a signal is told like one.
        problem, cure = words_of(error)
    after = None
    try:
        after = rows()
    except Exception as error:
        problem = (problem or "") + "\nand the database cannot be asked any more what it has: %s" % error
    if after is None:
        answer["result"] = "unknown"
    else:
        had, has = {name for _, name in before}, {name for _, name in after}
        if REVERSE:
            answer["migrations"] = [name for name in plan if name in had and name not in has]
        else:
            answer["migrations"] = [name for row, name in after if name not in had]
        left = [name for name in plan if (name in has) == REVERSE]
        answer["failed"] = left[0] if problem and left else ""
        answer["result"] = "failed" if problem else done if answer["migrations"] else "unchanged"
    if answer["result"] != "unchanged":
        try:
            entry = {"result": answer["result"], "migrations": answer["migrations"]}
            if answer["failed"]:
                entry["failed"] = answer["failed"]
            write_journal(P["journal"], dict(P["entry"], **entry))
        except OSError as error:
            problem = "%sthe journal cannot be written: %s" % (problem + "\n" if problem else "", error)
    if after is not None and plan:
        os.unlink(P["mark"])
    if not problem:
        return 0
    sys.stdout.flush()
    print("\n" + problem)
    if after is not None:
        print("%s: %s" % (done, ", ".join(answer["migrations"]) or "nothing"))
        whole = answer["failed"] not in not_atomic
        if answer["failed"] and not (whole and link.features.can_rollback_ddl):
            why = "this database has no transactions for tables" if whole else "its atomic is False"
            print("%s may be %s in part: %s" % (answer["failed"], done, why))
        elif answer["failed"]:
            print("%s is undone" % answer["failed"])
    print("cure: " + (cure or "make room on the host, then deploy again"))
    return 1


status = work()
print(json.dumps(answer), flush=True)
if lock:
    link.close()
    lock.free()
sys.exit(status)
