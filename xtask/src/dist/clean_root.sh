# Installs the package in a Debian of its own and takes it away again. A hook of mmdebstrap(1): $1 is
# the folder of that Debian, whose /tmp has package.deb and where Debian's dropwatch is installed.
#
# Prints `passed: STEP` or `failed: STEP` for each step, and `end` after the last. Whoever runs this
# counts them.
set -u
root=$1
name=dropwatch-ebpf
unit=dropwatch.service
log=dropwatch
package=/tmp/package.deb
kept=$(mktemp -d) || exit 1
trap 'rm -rf "$kept"' EXIT
trap 'exit 130' HUP INT TERM

step() {
    told=$1
    shift
    if output=$("$@" 2>&1 </dev/null); then
        echo "passed: $told"
    else
        echo "failed: $told"
        printf '%s\n' "$output" | sed 's/^/    /'
    fi
}

inside() {
    chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# All that a package can leave behind: paths with kind, mode, size and link target. Not what dpkg
# and man-db note down whenever any package comes or goes, nor the sizes of folders.
list() {
    find "$root" -xdev \( -type d -printf '%P/ %m\n' -o -printf '%P %y %m %s %l\n' \) |
        grep -v -e '^var/log/dpkg\.log ' -e '^var/lib/dpkg/[a-z]*-old ' -e '^var/lib/dpkg/triggers/' \
            -e '^var/cache/man/' | LC_ALL=C sort
}

says() {
    expected=$1
    shift
    output=$("$@") || return
    printf '%s\n' "$output"
    case $output in *"$expected"*) ;; *) return 1 ;; esac
}

own_dropwatch_is_untouched() {
    says dropwatch: inside dpkg -S /usr/bin/dropwatch && inside dpkg --verify dropwatch
}

runs_alone() {
    inside mkdir /tmp/alone && inside cp /usr/bin/$name /tmp/alone || return
    says 'dropwatch ' inside chroot /tmp/alone /$name --version
    result=$?
    inside rm -r /tmp/alone
    return $result
}

pages_are_clean() {
    pages=$(inside dpkg -L $name | grep '/man1/.*\.gz$')
    [ -n "$pages" ] || return
    for page in $pages; do
        warnings=$(inside man --warnings=w -l "$page" 2>&1 >/dev/null)
        [ -z "$warnings" ] || { printf '%s: %s\n' "$page" "$warnings"; return 1; }
    done
}

every_command_has_a_page() {
    commands=$(inside $name --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
    [ -n "$commands" ] || return
    for command in $commands; do
        [ "$command" = help ] || inside man -w "$name-$command" || return
    done
}

fish_completes() {
    # It makes itself at home, at its first start.
    says --watch inside HOME=/tmp/home fish -c "complete --do-complete '$name conntrack --wat'"
    result=$?
    inside rm -rf /tmp/home
    return $result
}

# What an administrator may have done before purging: enabled it, and recorded.
is_used() {
    wants=/etc/systemd/system/multi-user.target.wants
    inside mkdir -p $wants /var/log/private/$log || return
    inside ln -s /usr/lib/systemd/system/$unit $wants/$unit &&
        inside ln -s private/$log /var/log/$log && inside touch /var/log/$log/$log.ndjson
}

# Folders that systemd makes, not the package.
was_used() {
    inside rmdir --ignore-fail-on-non-empty /var/log/private
    inside sh -c '[ ! -d $1 ] || rmdir --ignore-fail-on-non-empty $1' - \
        /etc/systemd/system/multi-user.target.wants
}

unit_starts_what_is_there() {
    start=$(inside sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' /usr/lib/systemd/system/$unit)
    says $name: inside dpkg -S "$start" && inside test -x "$start"
}

unit_is_not_enabled() {
    found=$(inside find /etc/systemd /run -name "*$unit*" 2>/dev/null)
    [ -z "$found" ] || { echo "$found"; return 1; }
}

brings() {
    for file in lib/systemd/system/$unit share/$name/prometheus/alerts.yml \
        share/$name/prometheus/recording.yml share/$name/grafana/dropwatch.json \
        share/$name/report.schema.json share/$name/conntrack.schema.json \
        share/doc/$name/docs/logging.md.gz \
        share/doc/$name/docs/json.md.gz share/doc/$name/docs/metrics.md.gz \
        share/doc/$name/packaging/README.md.gz share/doc/$name/examples/listen.conf; do
        inside test -s /usr/$file || { echo "no /usr/$file"; return 1; }
    done
}

# A command that the other package has is another program.
texts_name_the_command() {
    texts=$(inside dpkg -L $name | grep -e "^/usr/share/$name/.*[ln]$" -e "^/usr/share/doc/$name/.*\.md\.gz$")
    [ -n "$texts" ] || return
    for text in $texts; do
        found=$(inside zgrep -n -E '(sudo |runbook: |\$ )dropwatch( |`|;|$)|`dropwatch ' "$text")
        [ -z "$found" ] || { echo "$text: $found"; return 1; }
    done
}

nothing_left() {
    list >"$kept/after" && diff "$kept/before" "$kept/after"
}

list >"$kept/before"
step 'installs beside the package dropwatch' inside dpkg --install $package
step 'leaves that package alone' own_dropwatch_is_untouched
step 'runs' says 'dropwatch ' inside $name --version
step 'runs where there is nothing else' runs_alone
step 'its files are the packed ones' inside dpkg --verify $name
step 'manual pages have no warnings' pages_are_clean
step 'every command has a page' every_command_has_a_page
step 'bash reads its completions' inside bash -n /usr/share/bash-completion/completions/$name
step 'zsh reads its completions' inside zsh -n /usr/share/zsh/vendor-completions/_$name
step 'fish reads its completions' \
    inside fish --no-execute /usr/share/fish/vendor_completions.d/$name.fish
step 'fish completes options of a subcommand' fish_completes
step 'brings unit, alerts, dashboard, schema and documents' brings
step 'its texts name its command' texts_name_the_command
step 'the unit starts what the package has' unit_starts_what_is_there
step 'the unit is not enabled' unit_is_not_enabled
step 'installs over itself' inside dpkg --install $package
step 'is used' is_used
step 'is purged' inside dpkg --purge $name
was_used
step 'leaves nothing behind' nothing_left
echo end
