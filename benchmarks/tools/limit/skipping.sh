# skipping.sh COMMIT REPOSITORY ROOT DOMAIN: the same deploy without what has not changed. As fast as we can write it:
# what git says of folders tells whether there is anything to do, Django starts once, and uv installs with hard links.
set -eu
commit=$1 repository=$2 root=$3 domain=$4
answers() { curl --silent --show-error --fail --max-time 60 --output front -H "Host: $domain" http://127.0.0.1/; }
cd "$root"
exec 9> lock
flock --nonblock 9

if [ "$(cat current/.commit 2>/dev/null)" = "$commit" ]; then answers; echo unchanged; exit 0; fi
export GIT_DIR="$root/repo.git"
if ! [ -d repo.git ]; then git clone --quiet --mirror "$repository" repo.git; fi
git cat-file -e "$commit" 2>/dev/null || git fetch --quiet
release=releases/$(date +%Y%m%d%H%M%S)-$(printf %.12s "$commit")
mkdir -p "$release" venvs static
git archive "$commit" | tar -x -C "$release"

# The requirements, the static files and the migrations, each by the ids that git gives them.
venv=$(git rev-parse "$commit:requirements.txt")
folders=$(git ls-tree -r -d "$commit")
static=$(printf '%s\n' "$folders" "$venv" "$(git rev-parse "$commit:shop/settings.py")" | grep -v '/migrations$' | grep -e '/static$' -e '^[0-9a-f]*$' | sha256sum | cut -c 1-40)
migrations=$(printf '%s\n' "$folders" "$venv" | grep -e '/migrations$' -e '^[0-9a-f]*$' | sha256sum | cut -c 1-40)

if ! [ -e "venvs/$venv/complete" ]; then
    rm -rf "venvs/$venv"
    if command -v uv > /dev/null; then
        uv venv --quiet --no-project --python python3 "venvs/$venv"
        uv pip install --quiet --python "venvs/$venv/bin/python" -r "$release/requirements.txt"
    else
        python3 -m venv "venvs/$venv"
        "venvs/$venv/bin/python" -m pip --quiet --disable-pip-version-check install -r "$release/requirements.txt"
    fi
    touch "venvs/$venv/complete"
fi
ln -s "../../venvs/$venv" "$release/venv"

deeds=check
if ! [ -e "static/$static.complete" ]; then
    deeds="$deeds collectstatic"
    rm -rf "static/$static"
    mkdir "static/$static"
fi
ln -s "../../static/$static" "$release/static_root"
if [ "$(cat migrated 2>/dev/null)" != "$migrations" ]; then deeds="$deeds migrate"; fi

set -a
. ./shared/environment
set +a
cd "$release"
venv/bin/python - "$deeds" > "$root/django.log" 2>&1 <<'PYTHON' || { cat "$root/django.log"; exit 1; }
import sys

sys.path.insert(0, "")
import django
from django.core.management import call_command

django.setup()
deeds = sys.argv[1].split()
call_command("check", deploy=True)
if "migrate" in deeds:
    call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
if "collectstatic" in deeds:
    call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True)
PYTHON
cd "$root"
touch "static/$static.complete"
echo "$migrations" > migrated
echo "$commit" > "$release/.commit"

before=$(readlink current || true)
ln -s "$release" current.new
mv -T current.new current
sudo systemctl restart shop
if ! answers; then
    if [ -n "$before" ]; then ln -s "$before" current.new; mv -T current.new current; sudo systemctl restart shop; fi
    echo "the new release does not answer" >&2
    exit 1
fi
if [ -n "$before" ]; then ln -s "$before" previous.new; mv -T previous.new previous; fi

# The one before may be old, where a rollback came in between.
ls -1d releases/* | grep -vxF -e "$release" -e "${before:-$release}" | head -n -3 | xargs -r rm -rf
used=$(readlink releases/*/venv releases/*/static_root)
for folder in venvs/* static/*; do
    case "$used" in *"$(basename "$folder" .complete)"*) ;; *) rm -rf "$folder" ;; esac
done
