"""Read a program file with supervisor's own parser; the words of its complaint are the output."""

import io
import os
import shutil
import sys
import tempfile

from supervisor.options import ServerOptions

P = PARAMETERS  # noqa: F821 - set by the line before this program
folder = tempfile.mkdtemp(prefix="fabdjango.")
try:
    with open(os.path.join(folder, P["name"]), "w", encoding="utf-8") as file:
        file.write(P["text"])
    with open(os.path.join(folder, "supervisord.conf"), "w") as file:
        file.write("[supervisord]\nlogfile=/dev/null\npidfile=%s/pid\n[include]\nfiles=%s\n" % (folder, P["name"]))
    options = ServerOptions()
    options.stderr = sys.stdout
    # Log folders may not exist yet, and belong to another account.
    options.exit = sys.exit
    options.realize(["-n", "-c", os.path.join(folder, "supervisord.conf")])
except (ValueError, KeyError, io.UnsupportedOperation) as error:
    print("%s: %s" % (P["name"], error))
    sys.exit(1)
finally:
    shutil.rmtree(folder, ignore_errors=True)
