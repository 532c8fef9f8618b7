"""Let a commit serve: releases as Capistrano has them, an operation for each step."""

from datetime import datetime, timezone

from pyinfra import host
from pyinfra.operations import server, systemd

KEPT = 5

root = host.data.root
repo = f"{root}/repo.git"
release = f"{root}/releases/{datetime.now(timezone.utc):%Y%m%d%H%M%S}"


def manage(name, command):
    server.shell(
        name=name,
        commands=f"set -a && . {root}/shared/environment && cd {release} && venv/bin/python manage.py {command}",
    )


server.shell(
    name="Fetch the repository",
    commands=f"if test -d {repo}; then git -C {repo} fetch --quiet --prune; "
    f"else git clone --quiet --mirror {host.data.repository} {repo}; fi",
)
server.shell(
    name="Export the commit",
    commands=f"mkdir -p {release} && git -C {repo} archive {host.data.commit} | tar -x -C {release}",
)
# One virtualenv that is installed into again and again would take its packages from a release that one goes back to.
server.shell(
    name="Make a virtualenv for these requirements, unless an earlier release made the same",
    commands=f"cd {release} && venv={root}/shared/venvs/$(sha256sum requirements.txt | cut -c 1-16) && "
    f"{{ test -e $venv/complete || {{ uv venv --quiet --clear --python {host.data.python} $venv && "
    "uv pip install --quiet --python $venv -r requirements.txt && touch $venv/complete; }; } && ln -s $venv venv",
)
manage("Check", "check --deploy")
manage("Migrate", "migrate --noinput")
manage("Collect static files", "collectstatic --noinput")
server.shell(
    name="Switch",
    commands=f"ln -s {release} {root}/current.new && mv -T {root}/current.new {root}/current",
)
systemd.service(name="Restart", service=host.data.service, running=True, restarted=True, _sudo=True)
server.shell(
    name="Ask for an answer",
    commands="curl --silent --show-error --fail --output /dev/null "
    f"--header 'Host: {host.data.domain}' http://localhost/",
)
server.shell(
    name="Throw old releases away",
    commands=f"cd {root}/releases && ls | head -n -{KEPT} | xargs -r rm -rf",
)
