"""Check, migration plan and collectstatic in one start of Django; the answer is one line of JSON."""

import importlib
import json
import os

P = PARAMETERS  # noqa: F821 - set by the line before this program
answer = {"migrations": [], "known": [], "static_root": "", "static_url": "", "host": "", "checks": [], "notes": []}
release = os.path.realpath(os.path.dirname(os.path.dirname(P["answer"])))

from django.apps import apps  # noqa: E402 - after setup
from django.core import checks  # noqa: E402

static_root = getattr(settings, "STATIC_ROOT", None)
sources = ""
if P["collectstatic"] != "never" and P["commit"] and static_root and apps.is_installed("django.contrib.staticfiles"):
    sources = digest_of(release, P["mirror"], P["commit"])
collecting = Collecting()
if sources and inside_of(release, static_root) and not (P["outgoing"] and collected_by(P["outgoing"])[0] == sources):
    # Django's own command with its own storage, and into the release: if the checks say no, nobody has seen it.
    collecting.begin(lambda: collect(release, static_root, sources))

if P["check"] != "never":
    try:
        found = checks.run_checks(include_deployment_checks=P["deploy"])
    except Exception:
        fail_with_traceback("the checks cannot run")
    bad = [m for m in found if not m.is_silenced() and m.level >= getattr(checks, P["check"])]
    answer["checks"] = [str(m) for m in found if not m.is_silenced() and m not in bad]
    if bad:
        for message in bad:
            print(message)
        fail(
            "manage.py check found %d of level %s or above" % (len(bad), P["check"]),
            "mend the project, or set fabdjango.django.check",
        )

if P["plan"]:
    for alias in connections:
        if not has_database(alias):
            continue
        try:
            executor = MigrationExecutor(connections[alias])
            conflicts = executor.loader.detect_conflicts()
            if conflicts:
                fail(
                    "conflicting migrations: %s"
                    % "; ".join("%s: %s" % (a, ", ".join(n)) for a, n in conflicts.items()),
                    "python manage.py makemigrations --merge",
                )
            if alias == "default":
                answer["known"] = known(executor.loader)
                executor.loader.check_consistent_history(connections[alias])
                plan = [m for m, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
                for migration, unsafe in zip(plan, unsafe_of_plan(executor, connections[alias], plan)):
                    answer["migrations"].append(
                        {
                            "app": migration.app_label,
                            "name": migration.name,
                            "operations": [describe(operation) for operation in migration.operations],
                            "unsafe": unsafe,
                        }
                    )
        except SystemExit:
            raise
        except Exception:
            fail_about_migrations("the database %r" % alias)
        finally:
            connections[alias].close()


def load_application(module):
    """The module of the application, as the server will load it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            fail(
                "there is no module %s to serve" % module,
                "set fabdjango.gunicorn.app; the settings name %s" % getattr(settings, "WSGI_APPLICATION", "none"),
            )
        fail_with_traceback("the application %s cannot be imported" % P["app"])
    except BaseException as error:
        # sys.exit() at import ends the program without a word.
        if isinstance(error, KeyboardInterrupt):
            raise
        fail_with_traceback("the application %s cannot be imported" % P["app"])


module, _, name = P["app"].partition(":")
note = None
if collecting.process:
    collecting.meanwhile()
    try:
        if module:
            importlib.import_module(module)
    except (Exception, SystemExit):
        # It may look at the static files when it is imported, and these come and go now; below it is tried again.
        pass
    note = collecting.finish()

if P["app"]:
    target = load_application(module)
    plain = name.split("(")[0].split(".")[0] or "application"
    if not hasattr(target, plain):
        fail("the module %s has no %s" % (module, plain), "set fabdjango.gunicorn.app")

if P["collectstatic"] != "never":
    storages = getattr(settings, "STORAGES", {})
    if not apps.is_installed("django.contrib.staticfiles"):
        if P["collectstatic"] == "always":
            fail(
                "django.contrib.staticfiles is not in INSTALLED_APPS",
                "add it, or set fabdjango.django.collectstatic to never",
            )
        answer["notes"].append("no static files collected: django.contrib.staticfiles is not installed")
    elif not static_root and "S3" not in str(storages.get("staticfiles")):
        if P["collectstatic"] == "always":
            fail(
                "STATIC_ROOT is not set, so collectstatic has nowhere to write",
                "set STATIC_ROOT in the settings, or fabdjango.django.collectstatic to auto",
            )
        answer["notes"].append("no static files collected: STATIC_ROOT is not set")
    else:
        from django.contrib.staticfiles.storage import staticfiles_storage

        if hasattr(staticfiles_storage, "manifest_name") and static_root and not inside_of(release, static_root):
            fail(
                "STATIC_ROOT is %s, outside of the release, and its storage has a manifest: a worker of the release "
                "that serves would read the manifest of the new one" % static_root,
                'set STATIC_ROOT = BASE_DIR / "static" in the settings',
            )
        taken = (
            take_over(P["outgoing"], sources, str(static_root)) if sources and P["outgoing"] and note is None else {}
        )
        if taken:
            before = os.path.basename(P["outgoing"])
            note = "%d static files as in %s: what they are made of is the same" % (len(taken), before)
            if inside_of(release, static_root):
                write_sources(release, sources, taken)
        answer["static_root"] = str(static_root or "")
        answer["notes"].append(collect(release, static_root, sources) if note is None else note)

if P["static"]:
    answer["static_url"] = address_of(P["static"], bool(sources))

hosts = [host.lstrip(".") for host in settings.ALLOWED_HOSTS if "*" not in host]
answer["host"] = hosts[0] if hosts else "localhost"
temporary = P["answer"] + ".new"
with open(temporary, "w") as file:
    json.dump(answer, file)
os.replace(temporary, P["answer"])
print(json.dumps(answer))
leave()
