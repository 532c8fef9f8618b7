# operator.sh PROGRAM SSH_CONFIG HOSTS WORDS...: a program for the hosts, each over one connection of OpenSSH, all at once.
set -u
program=$1 config=$2 hosts=$3
shift 3
running=
for host in $hosts; do
    ssh -F "$config" "$host" sh -s -- "$@" < "$program" &
    running="$running $!"
done
status=0
for pid in $running; do wait "$pid" || status=$?; done
exit "$status"
