"""Check, migration plan and collectstatic in one start of Django; the answer is one line of JSON."""

import importlib
import io
import json
import os
import sys
import traceback

P = PARAMETERS  # noqa: F821 - set by the line before this program
sys.path.insert(0, os.getcwd())
answer = {"migrations": [], "static_root": "", "static_url": "", "host": "", "checks": [], "notes": []}


def fail(what, cure=""):
    """Say in words what is wrong, and stop."""
    sys.stdout.flush()
    print(what)
    if cure:
        print("cure: " + cure)
    sys.exit(1)


def fail_with_traceback(what, cure=""):
    """The project's own frames of the traceback and the error, without ours and Django's."""
    kind, error, trace = sys.exc_info()
    frames = [
        f
        for f in traceback.extract_tb(trace)
        if "site-packages" not in f.filename
        and f.filename != "<stdin>"
        and "importlib" not in f.filename
        and not f.filename.startswith("<")
    ]
    for frame in frames[-4:]:
        print("%s line %s: %s" % (frame.filename, frame.lineno, frame.line or frame.name))
    if isinstance(error, SyntaxError) and error.filename:
        print("%s line %s: %s" % (error.filename, error.lineno, (error.text or "").strip()))
    fail("%s: %s: %s" % (what, kind.__name__, error), cure)


try:
    import django
    from django.conf import settings
except ImportError:
    fail("Django is not in the virtualenv", "list it in the project's requirements, or in fabdjango.venv.packages")

try:
    settings.INSTALLED_APPS
except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
        raise
    fail_with_traceback("the settings module %s cannot be imported" % os.environ.get("DJANGO_SETTINGS_MODULE"), "")
try:
    django.setup()
except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
        raise
    fail_with_traceback("Django cannot start with %s" % os.environ.get("DJANGO_SETTINGS_MODULE"))

from django.core import checks, management  # noqa: E402 - after setup

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

if P["app"]:
    module, _, name = P["app"].partition(":")
    try:
        target = importlib.import_module(module)
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
    plain = name.split("(")[0].split(".")[0] or "application"
    if not hasattr(target, plain):
        fail("the module %s has no %s" % (module, plain), "set fabdjango.gunicorn.app")

if P["plan"]:
    from django.db import connections
    from django.db.migrations.executor import MigrationExecutor

    for alias in connections:
        if not settings.DATABASES.get(alias, {}).get("ENGINE") or settings.DATABASES[alias]["ENGINE"].endswith("dummy"):
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
                executor.loader.check_consistent_history(connections[alias])
                for migration, backwards in executor.migration_plan(executor.loader.graph.leaf_nodes()):
                    operations = [operation.describe() for operation in migration.operations]
                    answer["migrations"].append(
                        {"app": migration.app_label, "name": migration.name, "operations": operations}
                    )
        except SystemExit:
            raise
        except Exception:
            fail_with_traceback(
                "the database %r cannot be asked for its migrations" % alias,
                "is it up, and are its address and password in the settings right?",
            )
        finally:
            connections[alias].close()

from django.apps import apps  # noqa: E402

if P["collectstatic"] != "never":
    static_root = getattr(settings, "STATIC_ROOT", None)
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
        out = io.StringIO()
        try:
            management.call_command("collectstatic", interactive=False, verbosity=1, stdout=out)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fail_with_traceback("collectstatic failed")
        answer["static_root"] = str(static_root or "")
        answer["notes"].append(
            (out.getvalue().strip().splitlines() or [""])[-1].replace("'%s'" % static_root, "STATIC_ROOT")
        )

if P["static"]:
    try:
        from django.templatetags.static import static

        answer["static_url"] = static(P["static"])
    except Exception as error:
        fail("fabdjango.health.static: there is no static file %s: %s" % (P["static"], error))

hosts = [host.lstrip(".") for host in settings.ALLOWED_HOSTS if "*" not in host]
answer["host"] = hosts[0] if hosts else "localhost"
temporary = P["answer"] + ".new"
with open(temporary, "w") as file:
    json.dump(answer, file)
os.replace(temporary, P["answer"])
print(json.dumps(answer))
