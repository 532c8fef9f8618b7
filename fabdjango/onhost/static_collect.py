"""Collectstatic, in a process of its own if there is a processor for it; a part, not a program."""

import atexit
import glob
import importlib.machinery
import importlib.util
import io
import os
import signal
import sys
import traceback

SIGKILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG, from linux/prctl.h
# The folders of gunicorn that every start of it loads modules of.
SERVER = ("", "app", "http", "workers")


class Collecting:
    """The process that collects while this one checks; its number is 0 if there is none."""

    def __init__(self):
        self.process = 0

    def begin(self, work):
        """Begin ``work``, which gives a line of text, unless a copy of this process may not be able to do it."""
        if len(os.sched_getaffinity(0)) < 2 or not hasattr(os, "memfd_create"):
            return
        # A copy has one thread, and locks that the others hold stay locked in it.
        if len(os.listdir("/proc/self/task")) > 1:
            return
        from django.db import connections

        # Two processes cannot talk through one connection.
        connections.close_all()
        sys.stdout.flush()
        self.answer, self.said = os.memfd_create("answer"), os.memfd_create("said")
        self.process = os.fork()
        if self.process == 0:
            self._work(work)
        # It must not go on in a release that is being removed.
        atexit.register(self.end)

    def _work(self, work):
        try:
            end_with_parent()
            os.dup2(self.said, 1)
            os.write(self.answer, b"done:" + work().encode(errors="backslashreplace"))
        except SystemExit:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def meanwhile(self):
        """Make the bytecode of the server's modules, which a new virtualenv lacks, until the other process is done."""
        found = importlib.util.find_spec("gunicorn")
        for root in found.submodule_search_locations if found else ():
            for name in SERVER:
                for path in sorted(glob.glob(os.path.join(glob.escape(os.path.join(root, name)), "*.py"))):
                    if not self._works():
                        return
                    compile_once(path)

    def _works(self):
        try:
            return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except OSError:
            return False

    def finish(self):
        """Wait for its end, say what it has said, and give its line; what went wrong there ends this process too."""
        process, self.process = self.process, 0
        try:
            how = os.waitpid(process, 0)[1]
        except OSError:
            # The project has its children waited for in another way; whether it has done its work, the answer says.
            how = 0
        with open(1, "wb", closefd=False) as output:
            output.write(all_of(self.said))
        if os.WIFSIGNALED(how):
            fail("collectstatic was ended by signal %d" % os.WTERMSIG(how), "is there memory for it? free -m")
        is_done, _, answer = all_of(self.answer).decode().partition(":")
        if not is_done:
            sys.exit(1)
        return answer

    def end(self):
        """Stop it."""
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            try:
                os.waitpid(self.process, 0)
            except OSError:
                pass


def compile_once(path):
    """The bytecode of a module, where Python looks for it; that is made only if it is not there."""
    try:
        importlib.machinery.SourceFileLoader("it", path).get_code("it")
    except (SyntaxError, ValueError, OSError):
        # Whoever imports it will complain.
        pass


def end_with_parent():
    """Let this process be killed with the one that has begun it; a Python without ctypes cannot ask for it."""
    parent = os.getppid()
    try:
        import ctypes

        ctypes.CDLL(None).prctl(SIGKILL_WITH_PARENT, int(signal.SIGKILL))
    except (ImportError, OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)


def all_of(number):
    """What an open file holds, from its beginning."""
    os.lseek(number, 0, os.SEEK_SET)
    with os.fdopen(number, "rb") as file:
        return file.read()


def collect(release, root, sources):
    """Run collectstatic, and give its last line."""
    from django.core import management

    out = io.StringIO()
    try:
        management.call_command("collectstatic", interactive=False, verbosity=1, stdout=out)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fail_with_traceback("collectstatic failed")
    if sources and inside_of(release, root):
        write_sources(release, sources, collected(root))
    said = (out.getvalue().strip().splitlines() or [""])[-1]
    return said.replace("'%s'" % root, "STATIC_ROOT")


def address_of(wanted, is_late):
    """The address of a static file; with ``is_late`` the manifest was made after this process had looked for one."""
    try:
        from django.contrib.staticfiles.storage import staticfiles_storage
        from django.templatetags.static import static

        if is_late and hasattr(staticfiles_storage, "load_manifest"):
            # Django 4 gives its hash as well.
            read = staticfiles_storage.load_manifest()
            staticfiles_storage.hashed_files = read[0] if isinstance(read, tuple) else read
        return static(wanted)
    except Exception as error:
        fail("fabdjango.health.static: there is no static file %s: %s" % (wanted, error))


def inside_of(release, path):
    """True if a path, "" for none, lies in a release."""
    return bool(path) and (os.path.realpath(path) + "/").startswith(release + "/")
