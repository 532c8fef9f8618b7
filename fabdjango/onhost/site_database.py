"""The database that the project itself uses, whatever fabdjango's settings say; a part, not a program."""

from django.conf import settings as django_settings
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

KINDS = {"postgresql": PostgresqlBackup, "mysql": MysqlBackup, "sqlite": SqliteBackup}
link = connections["default"]


def find_database():
    """The database called default; stops if it is of a kind that cannot be backed up."""
    if link.vendor not in KINDS:
        engine = django_settings.DATABASES.get("default", {}).get("ENGINE", "")
        stop("the project has no database that can be backed up: its engine is %s" % (engine or "none"))
    try:
        return KINDS[link.vendor](link)
    except SystemExit:
        raise
    except Exception:
        fail_with_traceback(
            "the database cannot be asked", "is it up, and are its address and password in the settings right?"
        )


def missing_migrations():
    """How many migrations of this release are not applied."""
    executor = MigrationExecutor(link)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
