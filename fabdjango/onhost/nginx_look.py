"""Look at nginx and the site's file for it; print what was found as one line of JSON. Writes nothing."""

import json
import os
import pwd
import re
import shutil
import subprocess

P = PARAMETERS  # noqa: F821 - set by the line before this program
ETC = "/etc/nginx"
os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def run(*argv):
    """(status, standard output, standard error) of a command."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def read(path):
    """Text of a file, or None if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def is_active():
    """True if a master process of nginx runs."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                if file.read().startswith(b"nginx: master process"):
                    return True
        except OSError:
            continue
    return False


def parts(path):
    """Every folder on the way to a path, and on the way to where its links lead, from the top down."""
    for each in (path, os.path.realpath(path)):
        found = [each]
        while os.path.dirname(found[-1]) != found[-1]:
            found.append(os.path.dirname(found[-1]))
        yield from reversed(found)


def blocked(user, paths):
    """The folders that an account cannot pass through on its way to ``paths``; what is not there yet is not asked for."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return []
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found = []
        try:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            for path in paths:
                for part in parts(path):
                    if os.path.isdir(part) and not os.access(part, os.X_OK):
                        found.append(part)
                        break
        finally:
            os.write(writer, json.dumps(list(dict.fromkeys(found))).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said.decode())


root = P["root"]
if root == "~" or root.startswith("~/"):
    root = os.path.expanduser("~" + P["owner"]) + root[1:]
answer = {
    "root": root,
    "program": shutil.which("nginx") or "",
    "maintenance": os.path.exists(root + "/run/maintenance"),
}
if answer["program"]:
    version = re.search(r"nginx/([0-9.]+)", run("nginx", "-v")[2])
    answer["version"] = version.group(1) if version else ""
    status, dumped, said = run("nginx", "-T")
    answer["test"] = "" if status == 0 else said.strip()
    text = dumped if status == 0 else read(ETC + "/nginx.conf") or ""
    user = re.search(r"^\s*user\s+\"?([^\s;\"]+)", text, re.M)
    built = re.search(r"--user=(\S+)", run("nginx", "-V")[2])
    answer["user"] = user.group(1) if user else built.group(1) if built else "nobody"
    included = re.findall(r"^\s*include\s+\"?([^;\"]+)", text, re.M)
    folder = ""
    for name in ("sites-enabled", "conf.d"):
        if os.path.isdir("%s/%s" % (ETC, name)) and any(name + "/" in each for each in included):
            folder = "%s/%s" % (ETC, name)
            break
    answer["folder"] = folder
    available = "%s/%s" % (ETC, "sites-available" if folder.endswith("sites-enabled") else "fabdjango")
    answer["file_path"] = "%s/%s.conf" % (available, P["project"])
    answer["link_path"] = "%s/%s.conf" % (folder, P["project"])
    answer["text"] = read(answer["file_path"])
    link = answer["link_path"]
    if os.path.lexists(link):
        ours = os.path.islink(link) and os.path.realpath(link) == os.path.realpath(answer["file_path"])
        answer["link"] = "ours" if ours else "other"
    else:
        answer["link"] = ""
    answer["ipv6"] = os.path.exists("/proc/net/if_inet6")
    answer["active"] = is_active()
    answer["blocked"] = blocked(answer["user"], [os.path.join(root, path) for path in P["paths"]])
print(json.dumps(answer))
