"""What migrations do to a release that does not know them, and what their reversal would lose; a part, not a program."""

# ruff: noqa: SLF001 - _meta and _base_manager are Django's own words
import re
import sys

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections, router  # noqa: F401 - for the programs behind it
from django.db.migrations import operations as ops
from django.db.migrations.executor import MigrationExecutor  # noqa: F401 - for the programs behind it
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState

SERVES = "the release that serves"
OLDER = "the older release"
MOST = 100000


def has_database(alias):
    """Whether there is a database behind the alias: a project may have none."""
    engine = django_settings.DATABASES.get(alias, {}).get("ENGINE") or "dummy"
    return not engine.endswith("dummy")


def fail_about_migrations(what):
    """End with the words for what has just been raised while the database and the migrations were looked at."""
    if isinstance(sys.exc_info()[1], (DatabaseError, ImproperlyConfigured, OSError)):
        fail_with_traceback(
            "%s cannot be asked for its migrations" % what,
            "is it up, and are its address and password in the settings right?",
        )
    fail_with_traceback("the migrations cannot be read", "mend them: python manage.py makemigrations --check --dry-run")


def label(migration):
    """The name of a migration as app.name."""
    return "%s.%s" % (migration.app_label, migration.name)


def known(loader):
    """Every migration that the release has on disk, as app.name, sorted."""
    return sorted("%s.%s" % key for key in loader.disk_migrations)


def applied(connection):
    """The migrations that the database says it has: (row, app.name), in the order in which they were applied."""
    recorder = MigrationRecorder(connection)
    if not recorder.has_table():
        return []
    rows = recorder.migration_qs.order_by("id").values_list("id", "app", "name")
    return [(row, "%s.%s" % (app, name)) for row, app, name in rows]


def full_plan(executor):
    """(migration, whether it is applied) of every migration of the release, in the order of applying."""
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes(), clean_start=True)
    done = set(executor.loader.applied_migrations)
    return [(migration, (migration.app_label, migration.name) in done) for migration, _ in plan]


def describe(operation):
    """An operation in the words of migrate --plan."""
    text = operation.describe()
    detail = ""
    if isinstance(operation, ops.RunPython):
        detail = operation.code.__doc__ or ""
    elif isinstance(operation, ops.RunSQL):
        detail = operation.sql if isinstance(operation.sql, str) else ""
    detail = " ".join(detail.split())
    return "%s -> %s" % (text, detail if len(detail) <= 60 else detail[:59] + "…") if detail else text


# --- fields ------------------------------------------------------------------


def field_of(state, app, model, name):
    """A field of a model in a state, with its name and column set, or None."""
    found = state.models.get((app, model.lower()))
    field = dict(found.fields).get(name) if found else None
    return named(field, name) if field is not None else None


def named(field, name):
    """A copy of the field that knows its name and column."""
    field = field.clone()
    field.set_attributes_from_name(name)
    return field


def related(field, app):
    """(app, model in lower case) that a foreign key points to, or None."""
    remote = getattr(field, "remote_field", None)
    if not remote:
        return None
    target = remote.model
    if not isinstance(target, str):
        return target._meta.app_label, target._meta.model_name
    if "." in target:
        other, model = target.split(".", 1)
        return other, model.lower()
    return app, target.lower()


def type_of(field, state, app, model, connection):
    """The column's type in the words of the database, or an empty string if it cannot be told."""
    try:
        if field.many_to_many:
            return ""
        target = related(field, app)
        if target:
            if target[1] == "self":
                target = (app, model.lower())
            fields = dict(state.models[target].fields)
            name = getattr(field, "to_fields", [None])[0]
            if not name or name not in fields:
                name = next((n for n, f in fields.items() if f.primary_key), None)
            if not name:
                return ""
            return (
                type_of(fields[name], state, target[0], target[1], connection)
                if related(fields[name], target[0])
                else (fields[name].rel_db_type(connection) or "")
            )
        return field.db_type(connection) or ""
    except Exception:
        return ""


def plain(kind):
    """A column type without what does not matter to its values."""
    text = re.sub(r"\s+auto_increment\b", "", kind.lower())
    return {"serial": "integer", "bigserial": "bigint", "smallserial": "smallint", "int": "integer"}.get(text, text)


def widens(old, new):
    """Whether every value of the type ``old`` is one of ``new``, and the old code need not know."""
    old, new = plain(old), plain(new)
    if old == new:
        return True
    texts = [re.match(r"(?:n?varchar2?|char|character varying)(?:\((\d+)\))?$", kind) for kind in (old, new)]
    if texts[0] and new in ("text", "longtext", "mediumtext", "clob", "nclob"):
        return True
    if texts[0] and texts[1]:
        before, after = texts[0].group(1), texts[1].group(1)
        return not after or bool(before and int(before) <= int(after))
    sizes = ["smallint", "integer", "bigint"]
    if old in sizes and new in sizes:
        return sizes.index(old) <= sizes.index(new)
    old_size, new_size = old.replace(" unsigned", ""), new.replace(" unsigned", "")
    if old.endswith(" unsigned") and new.endswith(" unsigned") and old_size in sizes and new_size in sizes:
        return sizes.index(old_size) <= sizes.index(new_size)
    numbers = [re.match(r"(?:numeric|decimal)\((\d+),\s*(\d+)\)$", kind) for kind in (old, new)]
    if numbers[0] and numbers[1]:
        digits, places = map(int, numbers[0].groups())
        more, finer = map(int, numbers[1].groups())
        return finer >= places and more - finer >= digits - places
    return False


def has_database_default(field):
    """Whether the database fills the column of a row that does not name it."""
    default = getattr(field, "db_default", None)
    return default is not None and getattr(default, "__name__", "") != "NOT_PROVIDED"


def must_be_named(field):
    """Whether an INSERT fails that does not name the field's column."""
    return not (
        field.many_to_many
        or field.null
        or has_database_default(field)
        or getattr(field, "generated", False)
        or field.get_internal_type() in ("AutoField", "BigAutoField", "SmallAutoField")
    )


def has_table(state, app, model):
    """Whether the model in this state has a table that migrations look after."""
    found = state.models.get((app, model.lower()))
    return bool(found) and found.options.get("managed", True) and not found.options.get("proxy")


def table_of(state, app, model):
    """The name of the model's table, as far as the state tells."""
    found = state.models[app, model.lower()]
    return found.options.get("db_table") or "%s_%s" % (app, found.name.lower())


def forwards(state, app, operation):
    """The state after the operation, as a new one."""
    after = state.clone()
    operation.state_forwards(app, after)
    return after


# --- can the code that serves live with it -----------------------------------


def judge(migration, state, connection, born, who=SERVES):
    """
    Sentences about what code that does not know the migration cannot live with.

    ``state`` is the one before it, and is moved past it. ``born`` holds what
    the plan itself has made, as (app, model) and (app, model, field), as nobody
    asks for that yet; it grows.
    """
    found = []
    for operation in migration.operations:
        found += judge_operation(migration.app_label, operation, state, connection, born, who)
    return ["%s: %s" % (label(migration), sentence) for sentence in found]


def judge_operation(app, operation, state, connection, born, who):
    """The sentences of one operation, without the migration's name; moves ``state`` past it."""
    found = []
    model = getattr(operation, "model_name", None) or getattr(operation, "name", None) or ""
    key = (app, model.lower())
    full = "%s.%s" % (app, state.models[key].name if key in state.models else model)
    new = key in born
    idle = not router.allow_migrate(connection.alias, app, model_name=key[1] or None)
    if isinstance(operation, ops.RunSQL):
        if operation.sql != ops.RunSQL.noop and not idle:
            found.append("it runs SQL, which cannot be judged: %s" % describe(operation))
    elif isinstance(operation, ops.RunPython):
        pass
    elif isinstance(operation, ops.SeparateDatabaseAndState):
        inner = state.clone()
        for each in operation.database_operations:
            found += judge_operation(app, each, inner, connection, born, who)
    elif isinstance(operation, ops.CreateModel):
        born.add(key)
    elif isinstance(operation, ops.RenameModel):
        old = (app, operation.old_name.lower())
        renamed = (app, operation.new_name.lower())
        if old in born:
            born.add(renamed)
            born.discard(old)
        elif has_table(state, *old) and not idle:
            table = table_of(state, *old)
            after = forwards(state, app, operation)
            if table_of(after, *renamed) != table:
                found.append(
                    "%s.%s is renamed to %s, and its table with it; %s still asks for the table %s"
                    % (app, operation.old_name, operation.new_name, who, table)
                )
        for each in [item for item in born if len(item) == 3 and item[:2] == old]:
            born.add(renamed + each[2:])
    elif isinstance(operation, ops.DeleteModel):
        if not new and has_table(state, *key) and not idle:
            found.append("%s is deleted; %s still asks for its table %s" % (full, who, table_of(state, *key)))
        born.discard(key)
    elif isinstance(operation, ops.AlterModelTable):
        if not new and has_table(state, *key) and not idle:
            table, after = table_of(state, *key), table_of(forwards(state, app, operation), *key)
            if table != after:
                found.append(
                    "the table of %s is renamed to %s; %s still asks for the table %s" % (full, after, who, table)
                )
    elif isinstance(operation, ops.AddField):
        field = named(operation.field, operation.name)
        if not new and not idle and has_table(state, *key) and must_be_named(field):
            found.append(
                "%s.%s is added, not null and without a default in the database; "
                "new rows that %s writes would be refused" % (full, operation.name, who)
            )
        elif not new and not field.many_to_many and (field.unique and has_database_default(field)):
            found.append("%s.%s is added as unique; %s may write values that it refuses" % (full, operation.name, who))
        born.add(key + (operation.name.lower(),))
    elif isinstance(operation, ops.RemoveField):
        field = field_of(state, app, model, operation.name)
        mine = new or key + (operation.name.lower(),) in born
        if not mine and not idle and has_table(state, *key) and field is not None:
            found.append("%s.%s is removed; %s still asks for %s" % (full, operation.name, who, operation.name))
        born.discard(key + (operation.name.lower(),))
    elif isinstance(operation, ops.RenameField):
        field = field_of(state, app, model, operation.old_name)
        old, renamed = key + (operation.old_name.lower(),), key + (operation.new_name.lower(),)
        if old in born:
            born.add(renamed)
            born.discard(old)
        elif not new and not idle and has_table(state, *key) and field is not None:
            if field.many_to_many or named(field, operation.new_name).column != field.column:
                found.append(
                    "%s.%s is renamed to %s; %s still asks for %s"
                    % (full, operation.old_name, operation.new_name, who, operation.old_name)
                )
    elif isinstance(operation, ops.AlterField):
        old = field_of(state, app, model, operation.name)
        if not new and not idle and has_table(state, *key) and old is not None:
            mine = key + (operation.name.lower(),) in born
            found += judge_change(app, model, full, operation, old, state, connection, mine, who)
    elif isinstance(operation, ops.AlterOrderWithRespectTo):
        had = state.models[key].options.get("order_with_respect_to") if key in state.models else None
        if not new and not idle and bool(had) != bool(operation.order_with_respect_to):
            found.append(
                "%s is no longer ordered by %s; %s still asks for the column _order" % (full, had, who)
                if had
                else "%s gets a column _order, not null; new rows that %s writes would be refused" % (full, who)
            )
    elif isinstance(operation, ops.AlterUniqueTogether):
        had = state.models[key].options.get("unique_together") or () if key in state.models else ()
        more = {tuple(each) for each in operation.option_value or ()} - {tuple(each) for each in had}
        if more and not new and not idle:
            words = "; ".join(", ".join(each) for each in sorted(more))
            found.append("%s must be unique by %s; %s may write rows that it refuses" % (full, words, who))
    elif isinstance(operation, ops.AddConstraint):
        if not new and not idle:
            found.append(
                "%s gets the constraint %s; %s may write rows that it refuses" % (full, operation.constraint.name, who)
            )
    elif isinstance(operation, harmless()) or type(operation).__module__.startswith("django.contrib.postgres."):
        pass
    elif not idle:
        found.append("it does %s, which cannot be judged: %s" % (type(operation).__name__, describe(operation)))
    operation.state_forwards(app, state)
    return found


def harmless():
    """Operations that no code notices; not every Django has each."""
    names = (
        "AddIndex RemoveIndex RenameIndex AlterIndexTogether RemoveConstraint AlterConstraint "
        "AlterModelTableComment AlterModelOptions AlterModelManagers"
    )
    return tuple(getattr(ops, name) for name in names.split() if hasattr(ops, name))


def judge_change(app, model, full, operation, old, state, connection, mine, who):
    """The sentences of an AlterField from ``old``; ``mine`` is true for a field that the plan has added."""
    new = named(operation.field, operation.name)
    name = "%s.%s" % (full, operation.name)
    if old.many_to_many or new.many_to_many:
        return []
    if must_be_named(new) and (mine or not must_be_named(old)):
        if mine:
            if must_be_named(old):
                return []
            return [
                "%s is made not null, without a default in the database; new rows that %s writes would be refused"
                % (name, who)
            ]
        if old.null:
            return ["%s is made not null; %s may still write null" % (name, who)]
        return ["%s loses its default in the database; new rows that %s writes would be refused" % (name, who)]
    if mine:
        return []
    found = []
    if old.null and not new.null:
        found.append("%s is made not null; %s may still write null" % (name, who))
    if old.column != new.column:
        found.append("the column of %s is renamed to %s; %s still asks for %s" % (name, new.column, who, old.column))
    before = type_of(old, state, app, model, connection)
    after = type_of(new, forwards(state, app, operation), app, model, connection)
    if before != after and not (before and after):
        found.append("the type of %s changes in a way that cannot be judged" % name)
    elif not widens(before, after):
        narrower = widens(after, before)
        found.append(
            "%s is narrowed from %s to %s; %s may still write values that do not fit" % (name, before, after, who)
            if narrower
            else "the type of %s changes from %s to %s; %s still reads and writes %s"
            % (name, before, after, who, before)
        )
    elif new.get_internal_type().startswith("Positive") and not old.get_internal_type().startswith("Positive"):
        found.append("%s must not be negative any more; %s may still write such values" % (name, who))
    if new.unique and not old.unique:
        found.append("%s is made unique; %s may write values that it refuses" % (name, who))
    target, was = related(new, app), related(old, app)
    if target and target != was:
        found.append("%s must refer to %s.%s; %s may write values that it refuses" % ((name,) + target + (who,)))
    return found


def unsafe_of_plan(executor, connection, plan):
    """For every migration of the plan, its sentences; in the plan's order."""
    if not plan:
        return []
    state = ProjectState(real_apps=executor.loader.unmigrated_apps)
    for migration, done in full_plan(executor):
        if done:
            migration.mutate_state(state, preserve=False)
    born, found = set(), []
    for migration in plan:
        try:
            found.append(judge(migration, state, connection, born))
        except Exception as error:
            # A judge that errs must not be what stops a deploy without a word.
            found.append(["%s: it cannot be judged: %s: %s" % (label(migration), type(error).__name__, error)])
    return found


# --- what a reversal would lose ----------------------------------------------


def steps_back(executor, target_known):
    """
    The applied migrations that the older release lacks, in the order of reversing, and what stands in the way.

    ``target_known`` is the older release's list. A squash is there if all that it replaces is.
    """
    names = set(target_known)
    plan = full_plan(executor)
    back, blocked = [], {}
    for migration, done in plan:
        if not done or label(migration) in names:
            continue
        replaced = {"%s.%s" % (app, name) for app, name in migration.replaces}
        if replaced and replaced <= names:
            continue
        if replaced & names:
            blocked[label(migration)] = "it is a squash of migrations that the older release has in part"
        back.append(migration)
    # Where a squash has lost its list of what it replaces, nobody can tell what it is made of.
    squashed = {"%s.%s" % key for migration, _ in plan for key in migration.replaces}
    here = set(known(executor.loader))
    gone = names - here - squashed
    for migration in back:
        lost = sorted(name for name in gone if name.split(".")[0] == migration.app_label)
        if lost:
            blocked[label(migration)] = "the older release has %s, which the newer one has no more" % lost[0]
    keys = {(migration.app_label, migration.name) for migration in back}
    for migration, done in plan:
        key = (migration.app_label, migration.name)
        if done and key not in keys:
            for parent in executor.loader.graph.node_map[key].parents:
                if parent.key in keys:
                    blocked.setdefault(
                        "%s.%s" % parent.key, "%s, which the older release has, needs it" % label(migration)
                    )
    return back[::-1], blocked


def reversal(executor, connection, target_known):
    """
    What going back to an older release means for the database: a list in the order of reversing.

    Each is app, name, operations (in words), unsafe (what the older release
    could not live with, should it stay), reversible, and reason: why it is not,
    or which data would be lost, with their numbers.
    """
    back, blocked = steps_back(executor, target_known)
    keys = {label(migration) for migration in back}
    state = ProjectState(real_apps=executor.loader.unmigrated_apps)
    born, trail, unsafe = set(), [], {}
    for migration, done in full_plan(executor):
        if not done:
            continue
        mine = label(migration) in keys
        if not mine and not trail:
            migration.mutate_state(state, preserve=False)
            continue
        ahead = state.clone()
        for operation in migration.operations:
            nested = isinstance(operation, ops.SeparateDatabaseAndState)
            inner = ahead.clone()
            for each in operation.database_operations if nested else (operation,):
                before = inner.clone()
                fresh = set(born)
                if mine:
                    unsafe.setdefault(label(migration), []).extend(
                        "%s: %s" % (label(migration), sentence)
                        for sentence in judge_operation(migration.app_label, each, inner, connection, born, OLDER)
                    )
                else:
                    each.state_forwards(migration.app_label, inner)
                trail.append(
                    (label(migration) if mine else "", migration.app_label, each, before, inner.clone(), fresh)
                )
            if nested:
                for each in operation.state_operations:
                    trail.append(("", migration.app_label, each, None, None, None))
            operation.state_forwards(migration.app_label, ahead)
        state = ahead
    now = state.apps
    answer = []
    for migration in back:
        reasons = [blocked[label(migration)]] if label(migration) in blocked else []
        for place, (name, app, operation, before, after, fresh) in enumerate(trail):
            if name != label(migration):
                continue
            try:
                reasons += losses(app, operation, before, fresh, now, trail[place + 1 :], connection)
            except Exception as error:
                reasons.append("%s: the data cannot be looked at: %s" % (describe(operation), error))
        answer.append(
            {
                "app": migration.app_label,
                "name": migration.name,
                "operations": [describe(operation) for operation in migration.operations],
                "unsafe": unsafe.get(label(migration), []),
                "reversible": not reasons,
                "reason": "; ".join("%s: %s" % (label(migration), reason) for reason in reasons),
            }
        )
    return answer


def today(app, model, name, later):
    """(app, model, field) under which something is known after the operations ``later``, or None if it is gone."""
    model = model.lower()
    for _, other, operation, *_ in later:
        if other != app:
            continue
        if isinstance(operation, ops.RenameModel) and operation.old_name.lower() == model:
            model = operation.new_name.lower()
        elif isinstance(operation, ops.DeleteModel) and operation.name.lower() == model:
            return None
        elif name and getattr(operation, "model_name", "").lower() == model:
            if isinstance(operation, ops.RenameField) and operation.old_name.lower() == name.lower():
                name = operation.new_name
            elif isinstance(operation, ops.RemoveField) and operation.name.lower() == name.lower():
                return None
    return app, model, name


def count(rows):
    """(number of rows, that number in words); more than 100000 are not counted."""
    number = rows.order_by()[: MOST + 1].count()
    return number, "more than %d rows" % MOST if number > MOST else "%d row%s" % (number, "" if number == 1 else "s")


def losses(app, operation, before, born, now, later, connection):
    """Why the operation must not be reversed: it cannot be, or data that there are would be lost; [] if it may."""
    if isinstance(operation, ops.SeparateDatabaseAndState):
        return [
            reason
            for each in operation.database_operations
            for reason in losses(app, each, before, born, now, later, connection)
        ]
    if not operation.reversible:
        return ["%s: it cannot be reversed" % describe(operation)]
    model = getattr(operation, "model_name", None) or getattr(operation, "name", None) or ""
    key = (app, model.lower())
    field = getattr(operation, "name", "") if hasattr(operation, "model_name") else ""
    if not model or not router.allow_migrate(connection.alias, app, model_name=key[1]):
        return []

    def rows(place):
        found = now.get_model(place[0], place[1])
        return found._base_manager.using(connection.alias), found._meta

    if isinstance(operation, ops.DeleteModel):
        if key in born or not has_table(before, *key):
            return []
        return ["the rows of %s were dropped by it and cannot come back" % table_of(before, *key)]
    place = today(app, model, field, later)
    if isinstance(operation, ops.CreateModel):
        if operation.options.get("proxy") or not operation.options.get("managed", True) or not place:
            return []
        these, meta = rows(place)
        number, words = count(these)
        return ["%s of %s would be lost" % (words, meta.db_table)] if number else []
    if not has_table(before, *key):
        return []
    if isinstance(operation, ops.AddField):
        return lost_values(operation, place, rows)
    if isinstance(operation, ops.RemoveField):
        home = today(app, model, "", later)
        if not home:
            return []
        these, meta = rows(home)
        number, words = count(these)
        gone = field_of(before, app, model, operation.name)
        if not number or gone is None:
            return []
        if key + (operation.name.lower(),) in born or key in born:
            if gone.many_to_many or gone.null or gone.has_default() or has_database_default(gone):
                return []
            if gone.blank and gone.empty_strings_allowed:
                return []
            return ["%s of %s would need a %s, which has no default" % (words, meta.db_table, operation.name)]
        return ["the %s of %s of %s was removed by it and cannot come back" % (operation.name, words, meta.db_table)]
    if isinstance(operation, ops.AlterField):
        old = field_of(before, app, model, operation.name)
        if not place or old is None:
            return []
        return unfit_values(app, model, operation, old, before, place, rows, connection)
    if isinstance(operation, ops.AlterUniqueTogether):
        had = before.models[key].options.get("unique_together") or ()
        keep = {tuple(each) for each in operation.option_value or ()}
        home = today(app, model, "", later)
        return [
            reason
            for each in had
            if tuple(each) not in keep and home
            for reason in duplicates(app, model, each, home, later, rows)
        ]
    if isinstance(operation, ops.RemoveConstraint):
        home = today(app, model, "", later)
        return lost_constraint(operation, before.models[key], app, model, home, later, rows) if home else []
    return []


def lost_values(operation, place, rows):
    """The values of an added field that are not its default."""
    if not place:
        return []
    these, meta = rows(place)
    field = meta.get_field(place[2])
    if field.many_to_many:
        if not field.remote_field.through._meta.auto_created:
            return []
        number, words = count(field.remote_field.through._base_manager.using(these.db))
        return ["%s of %s would be lost" % (words, field.m2m_db_table())] if number else []
    if getattr(field, "generated", False):
        return []
    filled = these.filter(**{place[2] + "__isnull": False})
    default = operation.field.default if operation.field.has_default() else None
    if default is None and has_database_default(operation.field):
        default = getattr(operation.field.db_default, "value", operation.field.db_default)
    elif callable(default):
        default = default()
    if default is None and not operation.field.null and operation.field.blank and field.empty_strings_allowed:
        default = ""
    number, words = count(filled)
    if default is not None:
        try:
            number, words = count(filled.exclude(**{place[2]: default}))
        except Exception:
            # A default that a query cannot hold: then every value counts.
            number, words = count(filled)
    if not number:
        return []
    verb = "has" if number == 1 else "have"
    return ["%s of %s %s a %s that would be lost" % (words, meta.db_table, verb, place[2])]


def unfit_values(app, model, operation, old, before, place, rows, connection):
    """Values that an altered field has and the old form of it cannot hold."""
    from django.db.models.functions import Length

    new = named(operation.field, operation.name)
    if old.many_to_many or new.many_to_many:
        return []
    these, meta = rows(place)
    name, table, found = place[2], meta.db_table, []

    def those(query, what):
        number, words = count(query)
        if number:
            found.append("%s of %s %s %s" % (words, table, "has" if number == 1 else "have", what))

    if new.null and not old.null:
        those(these.filter(**{name + "__isnull": True}), "no %s, which would be needed again" % name)
    if old.unique and not new.unique and not old.primary_key:
        found += repeated(these.filter(**{name + "__isnull": False}), [name], table)
    was = type_of(old, before, app, model, connection)
    after = type_of(new, forwards(before, app, operation), app, model, connection)
    filled = these.filter(**{name + "__isnull": False})
    sizes = {"smallint", "integer", "bigint"}
    if widens(after, was):
        pass
    elif old.max_length and "char" in was and ("char" in after or "text" in after.lower() or "clob" in after.lower()):
        those(
            filled.annotate(fabdjango_length=Length(name)).filter(fabdjango_length__gt=old.max_length),
            "a %s longer than the %d characters that would fit" % (name, old.max_length),
        )
    elif {plain(was).replace(" unsigned", ""), plain(after).replace(" unsigned", "")} <= sizes:
        least, most = connection.ops.integer_field_range(old.get_internal_type().replace("ForeignKey", "IntegerField"))
        if related(old, app) is None and most is not None:
            least = -(2**63) if least is None else least
            those(filled.exclude(**{name + "__range": (least, most)}), "a %s that would not fit" % name)
    else:
        those(
            filled,
            "a %s of the type %s, and nobody can say whether they fit into %s again" % (name, after or "?", was or "?"),
        )
    if old.get_internal_type().startswith("Positive") and not new.get_internal_type().startswith("Positive"):
        those(filled.filter(**{name + "__lt": 0}), "a negative %s" % name)
    return found


def duplicates(app, model, fields, home, later, rows):
    """Values of several fields that are there more than once, and that a reversal would make unique together again."""
    these, meta = rows(home)
    names = [today(app, model, field, later) for field in fields]
    if not all(names):
        return []
    names = [each[2] for each in names]
    return repeated(these.filter(**{name + "__isnull": False for name in names}), names, meta.db_table)


def repeated(these, names, table):
    """The sentence about values that are there more than once; [] if there are none."""
    from django.db.models import Count

    number, _ = count(these.values(*names).annotate(fabdjango_times=Count("*")).filter(fabdjango_times__gt=1))
    if not number:
        return []
    values = "1 value of %s is" if number == 1 else "%d values of %%s are" % number
    return ["%s in %s more than once, and would have to be unique again" % (values % ", ".join(names), table)]


def lost_constraint(operation, model_state, app, model, home, later, rows):
    """Rows that a constraint would refuse which the reversal puts back."""
    old = next((each for each in model_state.options.get("constraints", ()) if each.name == operation.name), None)
    these, meta = rows(home)
    if old is None:
        return []
    if type(old).__name__ == "UniqueConstraint" and old.fields and not old.condition:
        return duplicates(app, model, old.fields, home, later, rows)
    if type(old).__name__ == "CheckConstraint":
        condition = getattr(old, "condition", None) or old.check
        number, words = count(these.filter(~condition))
        return ["%s of %s would break the constraint %s" % (words, meta.db_table, old.name)] if number else []
    number, words = count(these)
    if not number:
        return []
    return ["nobody can say whether %s of %s obey the constraint %s" % (words, meta.db_table, old.name)]
