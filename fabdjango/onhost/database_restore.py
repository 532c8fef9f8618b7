"""Put a backup in the place of the project's database: all of it, or nothing."""

import os

P = PARAMETERS  # noqa: F821 - set by the line before this program


def note_migrations():
    """Say whether the code that serves has migrations that the database now lacks."""
    try:
        count = missing_migrations()
    except Exception as error:
        report("note", "the restored database cannot be asked for its migrations: %s" % error)
        return
    if count:
        report("note", "the database now lacks %d migrations of the release that serves: fab … django.migrate" % count)


os.umask(0o077)
path = os.path.join(FOLDER, P["name"])
database = find_database()
if not os.path.exists(path):
    stop("there is no backup %s" % P["name"], "see them with: fab … db.backups")
if suffix_of(P["name"]) != database.suffix:
    stop("%s is not of this kind of database, whose backups end with %s" % (P["name"], database.suffix))
said = problem(path, database.suffix, True)
if said:
    stop("the backup is broken: " + said, "choose another one: fab … db.backups --whole")
said = database.restore(path)
if said:
    stop("the database is as it was: " + said)
try:
    write_journal(at_home(P["journal"]), dict(P["entry"], result="restored", file=P["name"]))
except OSError as error:
    report("note", "the journal cannot be written: %s" % error)
link.close()
note_migrations()
