"""The start of the project's Django, in front of programs that need it; a part, not a program."""

import atexit
import gc
import os
import sys
import traceback

sys.path.insert(0, os.getcwd())
# What Django loads stays until the end: nothing is gained by collecting while it does, nor at the very end.
gc.disable()


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


def leave():
    """End well, after all that wants to be told of the end; taking every module apart would take longer than a small step."""
    sys.stdout.flush()
    sys.stderr.flush()
    # What the interpreter calls itself; there is no public name for it.
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    os._exit(0)


try:
    import django
    from django.conf import settings
except ImportError:
    fail("Django is not in the virtualenv", "list it in the project's requirements, or in fabdjango.venv.packages")

if os.environ.get("DJANGO_CONFIGURATION"):
    # The settings are a class, and only django-configurations knows how to make a module of it.
    try:
        from configurations import importer

        importer.install()
    except ImportError:
        fail(
            "DJANGO_CONFIGURATION is set, and django-configurations is not in the virtualenv",
            "list it in the requirements",
        )
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
gc.enable()
gc.freeze()
