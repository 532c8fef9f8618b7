"""Try to get more rights than a deployment needs, from the account that it runs as; print each try as a line of JSON, and clean up."""

import grp
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile

P = PARAMETERS  # noqa: F821 - set by the line before this program
ROOT = P["root"]
ME = pwd.getpwuid(os.getuid())
PLACE = os.path.realpath(tempfile.mkdtemp(prefix="fabdjango-doctor."))
MARK = os.path.join(PLACE, "reached")
TRIED = []


def tell(name, held, how=""):
    """How a try ended."""
    TRIED.append(name)
    sys.stdout.write(json.dumps({"try": name, "held": bool(held), "how": how}) + "\n")
    sys.stdout.flush()


def run(*argv, **more):
    """Status and output of a program that cannot ask anything."""
    environ = dict(os.environ, **more.pop("environ", {}))
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
            env=environ,
            cwd=more.get("cwd", PLACE),
        )
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return -1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def bait(name, text, mode=0o755):
    """A file that says in MARK, if it is run, whose rights it was run with."""
    path = os.path.join(PLACE, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


SHELL = "#!/bin/sh\nid -u >> %s\n" % MARK
PYTHON = "import os\nopen(%r, 'a').write('%%d\\n' %% os.getuid())\n" % MARK


def reached():
    """True if something of ours ran as root since we last asked."""
    try:
        with open(MARK) as file:
            return "0" in file.read().split()
    except OSError:
        return False
    finally:
        if os.path.exists(MARK):
            os.unlink(MARK)


def as_root(*words, **more):
    """Run the site's own program of root's that only looks, by sudo."""
    return run("sudo", "-n", *words, **more)


def writable(*paths):
    """Those of the paths that we could change or put something into."""
    return [path for path in paths if os.path.exists(path) and os.access(path, os.W_OK)]


def sudo_tries():
    """Everything that sudo could be talked into."""
    status, said = as_root("--", "sh", "-c", "id -u")
    tell("any command by sudo", status != 0, "sudo runs what it is told")
    status, said = run("sudo", "-n", "-l")
    others = [line.strip() for line in said.splitlines() if "NOPASSWD" in line and P["folder"] + "/" not in line]
    tell("a rule of sudo beside the site's programs", not others, "; ".join(others))
    status, said = run("sudo", "-n", "-e", "/etc/fabdjango-doctor")
    tell("editing a file of root's by sudo", status != 0, "sudo -e is allowed")
    if ME.pw_name != P["app"] and P["app"]:
        status, said = as_root("-u", P["app"], "--", "id")
        tell("becoming the application by sudo", status != 0, "sudo -u %s is allowed" % P["app"])
    program = P["program"]
    if not program or not os.path.exists(program):
        return
    link = os.path.join(PLACE, os.path.basename(program))
    os.symlink("/bin/sh", link)
    status, said = as_root("--", link, "-c", "id -u")
    tell("another program under the name of one that is allowed", status != 0, "sudo goes by the name alone")
    path = os.path.join(os.path.dirname(program), "..", "..", "..", "bin", "sh")
    status, said = as_root("--", path, "-c", "id -u")
    tell("a way out of the folder of programs", status != 0, "sudo runs %s" % path)
    words = [
        ";id -u >> %s" % MARK,
        "$(id -u >> %s)" % MARK,
        "`id -u >> %s`" % MARK,
        "R1\nid -u >> %s" % MARK,
        "-c",
        "../../x",
    ]
    for word in words:
        as_root("--", program, word, "T1")
        as_root("--", program, "R1", word)
    tell("shell in the arguments of a program", not reached(), "an argument was run as root")
    for name in ("flock", "systemctl", "supervisorctl", "python3", "id", "cat", "sed", "dirname", "sync"):
        bait("bin/" + name, SHELL)
    as_root("--", program, "R1", "", environ={"PATH": os.path.join(PLACE, "bin") + ":" + os.environ.get("PATH", "")})
    tell("programs of ours in PATH", not reached(), "root ran a program from our PATH")
    evil = bait("evil.sh", SHELL)
    as_root(
        "--", program, "R1", "", environ={"ENV": evil, "BASH_ENV": evil, "PS4": "$(%s)" % evil, "SHELLOPTS": "xtrace"}
    )
    tell("a shell's own start files", not reached(), "root read ENV or BASH_ENV")
    for name in ("json", "os", "sys", "supervisor", "sitecustomize", "usercustomize"):
        bait("modules/%s.py" % name, PYTHON)
    folder = os.path.join(PLACE, "modules")
    as_root(
        "--",
        program,
        "R1",
        "",
        environ={"PYTHONPATH": folder, "PYTHONSTARTUP": folder + "/os.py", "PYTHONHOME": folder},
    )
    tell("modules of ours in PYTHONPATH", not reached(), "root imported a module of ours")
    as_root("--", program, "R1", "", cwd=folder)
    tell("modules of ours in the working folder", not reached(), "root imported a module from where it was started")
    as_root("--", program, "R1", "", environ={"HOME": folder})
    tell("modules of ours in the home folder", not reached(), "root imported a module from HOME")
    status, said = as_root("PATH=" + folder, "LD_PRELOAD=" + evil, "--", program, "R1", "")
    tell("variables on sudo's own command line", status != 0, "sudo takes variables from the command line")


def file_tries():
    """Everything that root reads, runs or trusts."""
    found = writable(P["folder"], os.path.dirname(P["folder"]), "/opt", *[each for each in (P["program"],) if each])
    if os.path.isdir(P["folder"]):
        found += writable(*(os.path.join(P["folder"], name) for name in os.listdir(P["folder"])))
    tell("changing the programs of root's", not found, ", ".join(found))
    found = writable("/etc/sudoers", "/etc/sudoers.d", "/etc/sudo.conf")
    tell("changing the rules of sudo", not found, ", ".join(found))
    units = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/system"]
    found = writable(
        "/etc/supervisor", "/etc/supervisor/conf.d", "/etc/supervisor/supervisord.conf", *units, *P["files"]
    )
    tell("changing what the process manager starts", not found, ", ".join(found))
    found = writable(
        "/etc/nginx",
        "/etc/nginx/nginx.conf",
        "/etc/nginx/conf.d",
        "/etc/nginx/sites-available",
        "/etc/nginx/sites-enabled",
    )
    tell("changing what nginx reads as root", not found, ", ".join(found))
    cron = (
        "/etc/crontab",
        "/etc/cron.d",
        "/etc/cron.hourly",
        "/etc/cron.daily",
        "/etc/cron.weekly",
        "/etc/cron.monthly",
        "/var/spool/cron/crontabs",
    )
    found = writable(
        *cron,
        "/etc/logrotate.d",
        "/etc/logrotate.conf",
        "/etc/profile.d",
        "/etc/ld.so.preload",
        "/etc/ld.so.conf.d",
        "/etc/pam.d",
    )
    tell("changing what root runs at a time", not found, ", ".join(found))
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".split(":")
    found = writable(*path, "/usr/local/lib", "/usr/lib/python3/dist-packages", "/usr/lib/python3", "/usr/share")
    tell("putting programs or modules where root looks for them", not found, ", ".join(found))
    found = writable("/var/log/supervisor", "/var/log/nginx")
    tell("putting a link where root writes its logs", not found, ", ".join(found))
    found = [path for path in ("/etc/shadow", "/etc/gshadow", "/root", "/root/.ssh") if os.access(path, os.R_OK)]
    tell("reading root's secrets", not found, ", ".join(found))
    found = writable(
        "/root",
        "/root/.ssh",
        "/root/.ssh/authorized_keys",
        "/etc/ssh",
        "/etc/ssh/sshd_config.d",
        "/etc/passwd",
        "/etc/group",
    )
    tell("logging in as root", not found, ", ".join(found))


def service_tries():
    """Everything that runs as root and listens to others."""
    mighty = {
        "root",
        "sudo",
        "wheel",
        "admin",
        "docker",
        "lxd",
        "incus-admin",
        "libvirt",
        "disk",
        "shadow",
        "kmem",
        "staff",
    }
    found = sorted(mighty & {grp.getgrgid(each).gr_name for each in {os.getgid(), *os.getgroups()}})
    tell("a group that is as good as root", not found, ", ".join(found))
    found = []
    names = (
        "/run/supervisor.sock",
        "/var/run/supervisor.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
    )
    for path in sorted({os.path.realpath(name) for name in names}):
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(5)
        try:
            link.connect(path)
            found.append(path)
        except OSError:
            pass
        finally:
            link.close()
    tell("a socket of a service of root's", not found, ", ".join(found))
    status, said = run("systemd-run", "--no-ask-password", "--quiet", "--wait", "sh", "-c", SHELL.split("\n")[1])
    tell("a unit of ours in systemd", status != 0 and not reached(), "systemd-run is allowed")
    try:
        os.kill(1, 0)
        held = False
    except OSError:
        held = True
    tell("a signal to root's processes", held, "PID 1 takes our signals")
    found = writable(
        "/dev/mem",
        "/dev/kmem",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        *disks(),
    )
    tell("the kernel and the disks", not found, ", ".join(found))


def disks():
    """The block devices of this host."""
    names = [os.path.join("/dev", name) for name in os.listdir("/dev")]
    return [name for name in names if stat.S_ISBLK(os.lstat(name).st_mode)]


def may_write(path, uid, groups):
    """True if an account could write there, by owner, group and mode."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if stat.S_ISLNK(found.st_mode):
        return False
    bit = 0o200 if found.st_uid == uid else 0o020 if found.st_gid in groups else 0o002
    return bool(found.st_mode & bit)


def app_tries():
    """What the application could change of what it runs."""
    if P["app"] in ("", ME.pw_name):
        tell(
            "the application changes its own code",
            False,
            "it runs as %s, who owns every release: set fabdjango.run_as" % ME.pw_name,
        )
        return
    account = pwd.getpwnam(P["app"])
    groups = {account.pw_gid} | {each.gr_gid for each in grp.getgrall() if account.pw_name in each.gr_mem}
    for title, names in (
        ("the application changes a release", ("releases", "current")),
        ("the application changes a virtualenv", ("venvs",)),
        ("the application changes what is started next", ("", "run", "slots", "repo.git", "tools", "shared")),
    ):
        found = []
        for name in names:
            top = os.path.join(ROOT, name)
            found += [top] if may_write(top, account.pw_uid, groups) else []
            if name in ("releases", "venvs"):
                for place, folders, files in os.walk(top):
                    found += [
                        path
                        for path in (os.path.join(place, each) for each in folders + files)
                        if may_write(path, account.pw_uid, groups)
                    ]
        tell(title, not found, ", ".join(found[:3]))
    found = [
        name
        for name in (".env", "generated.env", "local_settings.py")
        if may_write(os.path.join(ROOT, "shared", name), account.pw_uid, groups)
    ]
    tell("the application changes its own settings", not found, ", ".join(found))


try:
    sudo_tries()
    file_tries()
    service_tries()
    app_tries()
finally:
    shutil.rmtree(PLACE, ignore_errors=True)
