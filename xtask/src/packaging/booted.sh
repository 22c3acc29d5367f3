# What systemd makes of the unit, as its PID 1: run inside by `cargo xtask packaging` (booted.rs).
#
# Prints `passed: STEP` or `failed: STEP` for each step, and `end` after the last. What is for its
# caller to read is in /out.
set -u
unit=dropwatch.service
# Where a test changes the command, in the place of an administrator.
folder=/run/systemd/system/$unit.d
command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/$unit)
# None that the kernel gives to those who ask for any (ip_local_port_range).
port=28999
own="--netns /proc/1/ns/net --port $port"
# systemd waits this long and a little before it tries again.
patience=15

step() {
    told=$1
    shift
    if output=$("$@" 2>&1 </dev/null); then
        echo "passed: $told"
    else
        echo "failed: $told"
        printf '%s\n' "$output" | sed 's/^/    /'
        systemctl status --no-pager --lines=20 $unit 2>&1 | sed 's/^/    /'
    fi
    systemctl stop $unit
    systemctl reset-failed $unit 2>/dev/null
    rm -rf "$folder"
}

# The unit with lines of [Service] from standard input.
with() {
    mkdir -p "$folder"
    { echo '[Service]'; cat; } >"$folder/zz-test.conf"
    systemctl daemon-reload
}

as_packaged() {
    rm -rf "$folder"
    systemctl daemon-reload
}

# The unit with a recipe of docs/logging.md, for packets of this container to $port alone: the rest of
# the host drops packets, too.
with_recipe() {
    mkdir -p "$folder"
    sed "s,^\(ExecStart=.*\)\( --interval\),\1 $own\2," "/recipes/$1" >"$folder/$1"
    grep -q -- "$own" "$folder/$1" || return
    systemctl daemon-reload
}

# That a property of the service has a value.
is() {
    value=$(systemctl show --property="$1" --value $unit)
    [ "$value" = "$2" ] || { echo "$1 is $value, not $2"; return 1; }
}

# That the journal of the service has a text in it, since the step began.
told() {
    journalctl --sync
    journalctl --unit $unit --output cat --after-cursor "$cursor" | grep -F -- "$1" && return
    echo "the journal does not say: $1"
    return 1
}

begin() {
    journalctl --sync
    cursor=$(journalctl --show-cursor --lines=1 --output cat | sed -n 's/^-- cursor: //p')
    [ -n "$cursor" ]
}

within() {
    left=$(($1 * 10))
    shift
    until "$@" >/dev/null; do
        left=$((left - 1))
        [ $left -gt 0 ] || { "$@"; return 1; }
        sleep 0.1
    done
}

# Datagrams to a port that nobody listens on.
send() {
    bash -c "for i in {1..$1}; do echo >/dev/udp/127.0.0.1/$port; done"
}

# A status that says that the next start fails as well.
fails_for_good() {
    systemctl start $unit && { echo 'it started'; return 1; }
    is ActiveState failed && is Result exit-code && is ExecMainStatus "$1" && is NRestarts 0
}

refuses_a_wrong_option() {
    begin
    printf 'ExecStart=\nExecStart=%s --no-such-option\n' "$command" | with
    fails_for_good 2 && told "unexpected argument '--no-such-option'"
}

names_a_missing_capability() {
    begin
    printf 'AmbientCapabilities=\nCapabilityBoundingSet=CAP_NET_ADMIN\n' | with
    fails_for_good 3 && told CAP_BPF
}

names_what_it_cannot_write() {
    begin
    # ProtectSystem=strict: a folder that the unit does not name.
    printf 'Restart=no\nExecStart=\nExecStart=%s --output /var/lib/x.ndjson\n' "$command" | with
    fails_for_good 1 && told /var/lib/x.ndjson
}

tries_again() {
    begin
    as_packaged
    systemctl start busy.socket || return
    systemctl start --no-block $unit
    within $patience told 127.0.0.1:9435 || return
    # It was never active, so nobody took it for started.
    is ActiveState activating || return
    systemctl stop busy.socket
    within $patience is ActiveState active && is NRestarts 1
}

comes_back() {
    as_packaged
    systemctl start $unit && first=$(systemctl show --property=MainPID --value $unit) || return
    systemctl kill --kill-who=main --signal=KILL $unit
    within $patience is ActiveState active && is NRestarts 1 || return
    ! is MainPID "$first"
}

answers() {
    as_packaged
    systemctl start $unit || return
    exec 3<>/dev/tcp/127.0.0.1/9435 || return
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
    page=$(timeout 10 cat <&3)
    case $page in *dropwatch_reports_total*) ;; *) echo "$page"; return 1 ;; esac
    user=$(sed -n 's/^Uid:\t*\([0-9]*\).*/\1/p' "/proc/$(systemctl show --property=MainPID --value $unit)/status")
    [ "$user" -gt 0 ]
}

# What is dropped after `systemctl start` has returned is counted, from the first packet on; the file
# that SIGHUP opens anew goes on where the other ended.
records() {
    begin
    with_recipe record.conf || return
    systemctl start $unit && send 200 || return
    mv /var/log/dropwatch/dropwatch.ndjson /var/log/dropwatch/dropwatch.ndjson.1
    systemctl reload $unit && send 100 || return
    systemctl stop $unit
    is Result success || return
    cp /var/log/dropwatch/dropwatch.ndjson* /out
}

logs() {
    begin
    with_recipe journal.conf || return
    systemctl start $unit && send 50 || return
    systemctl stop $unit
    is Result success || return
    journalctl --sync
    journalctl --unit $unit --output cat --after-cursor "$cursor" >/out/journal
}

step 'a wrong option is told in the journal, and not tried again' refuses_a_wrong_option
step 'a missing capability is told in the journal, and not tried again' names_a_missing_capability
step 'what cannot be written is told in the journal' names_what_it_cannot_write
step 'what may pass is tried again, and told' tries_again
step 'killed, it comes back' comes_back
step 'as packaged, it is no root and answers' answers
step 'with the drop-in that records, it is active once it counts' records
step 'with the drop-in for the journal, it is active once it counts' logs
echo end
