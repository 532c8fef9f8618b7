# plain.sh COMMIT REPOSITORY ROOT DOMAIN: what many teams have written for themselves. It does everything each time.
# Its virtualenv is one for all releases, so that pip finds most of it there.
set -eu
commit=$1 repository=$2 root=$3 domain=$4
cd "$root"
exec 9> lock
flock --nonblock 9

if ! [ -d repo.git ]; then git clone --quiet --mirror "$repository" repo.git; fi
git --git-dir=repo.git fetch --quiet --prune
release=releases/$(date +%Y%m%d%H%M%S)-$(printf %.12s "$commit")
mkdir -p "$release"
git --git-dir=repo.git archive "$commit" | tar -x -C "$release"

if ! [ -d venv ]; then python3 -m venv venv; fi
venv/bin/python -m pip --quiet --disable-pip-version-check install -r "$release/requirements.txt"
ln -s ../../venv "$release/venv"

set -a
. ./shared/environment
set +a
cd "$release"
venv/bin/python manage.py check --deploy > "$root/check.log" 2>&1 || { cat "$root/check.log"; exit 1; }
venv/bin/python manage.py migrate --noinput --verbosity 0
venv/bin/python manage.py collectstatic --noinput --verbosity 0
cd "$root"

before=$(readlink current || true)
ln -s "$release" current.new
mv -T current.new current
sudo systemctl restart shop
if ! curl --silent --show-error --fail --max-time 60 --output front -H "Host: $domain" http://127.0.0.1/; then
    if [ -n "$before" ]; then ln -s "$before" current.new; mv -T current.new current; sudo systemctl restart shop; fi
    echo "the new release does not answer" >&2
    exit 1
fi
if [ -n "$before" ]; then ln -s "$before" previous.new; mv -T previous.new previous; fi
# The one before may be old, where a rollback came in between.
ls -1d releases/* | grep -vxF -e "$release" -e "${before:-$release}" | head -n -3 | xargs -r rm -rf
