# rollback.sh ROOT DOMAIN: let the release that served before serve again. The same for both scripts.
set -eu
root=$1 domain=$2
cd "$root"
exec 9> lock
flock --nonblock 9

before=$(readlink current)
ln -s "$(readlink previous)" current.new
mv -T current.new current
ln -s "$before" previous.new
mv -T previous.new previous
sudo systemctl restart shop
curl --silent --show-error --fail --max-time 60 --output front -H "Host: $domain" http://127.0.0.1/
