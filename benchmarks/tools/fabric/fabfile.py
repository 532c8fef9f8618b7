"""
Deploy the shop, a `run` for each step.

Fabric's tutorial has one such list of runs for each host in turn (https://docs.fabfile.org/en/stable/getting-started.html),
and names ThreadingGroup as what does it on all hosts at once (https://docs.fabfile.org/en/stable/api/group.html).
"""

from datetime import datetime, timezone

from fabric import ThreadingGroup, task

KEPT = 5


@task
def deploy(c, commit):
    """Let a commit serve."""
    site = c.config.site
    release = f"{site.root}/releases/{datetime.now(timezone.utc):%Y%m%d%H%M%S}"
    with ThreadingGroup(*site.hosts) as web:
        update_code(web, site, release, commit)
        install_requirements(web, site, release)
        manage(web, site, release, "check --deploy")
        manage(web, site, release, "migrate --noinput")
        manage(web, site, release, "collectstatic --noinput")
        web.run(f"ln -s {release} {site.root}/current.new && mv -T {site.root}/current.new {site.root}/current")
        restart(web, site)
        web.run(f"cd {site.root}/releases && ls | head -n -{KEPT} | xargs -r rm -rf")


@task
def rollback(c):
    """Let the release before serve again."""
    site = c.config.site
    with ThreadingGroup(*site.hosts) as web:
        now = f"cd {site.root}/releases && now=$(basename $(readlink ../current))"
        before = '$(ls | grep -x -B 1 "$now" | grep -v -x "$now")'
        web.run(
            f"{now} && before={before} && ln -s {site.root}/releases/$before ../current.new && mv -T ../current.new ../current"
        )
        restart(web, site)
        web.run(f"""{now} && ls | awk -v now="$now" '$0 > now' | xargs -r rm -rf""")


def update_code(web, site, release, commit):
    repo = f"{site.root}/repo.git"
    web.run(f"test -d {repo} || git clone --quiet --mirror {site.repository} {repo}")
    web.run(f"git -C {repo} fetch --quiet --prune")
    web.run(f"mkdir -p {release} && git -C {repo} archive {commit} | tar -x -C {release}")


def install_requirements(web, site, release):
    """
    Make a virtualenv for what requirements.txt says, unless an earlier release made the same.

    One that is installed into again and again would take its packages from a release that one goes back to.
    """
    web.run(
        f"cd {release} && venv={site.root}/shared/venvs/$(sha256sum requirements.txt | cut -c 1-16) && "
        f"{{ test -e $venv/complete || {{ uv venv --quiet --clear --python {site.python} $venv && "
        "uv pip install --quiet --python $venv -r requirements.txt && touch $venv/complete; }; } && ln -s $venv venv"
    )


def manage(web, site, release, command):
    web.run(f"set -a && . {site.root}/shared/environment && cd {release} && venv/bin/python manage.py {command}")


def restart(web, site):
    web.sudo(f"systemctl restart {site.service}")
    web.run(f"curl --silent --show-error --fail --output /dev/null --header 'Host: {site.domain}' http://localhost/")
