# Installs the package in a Debian of its own and takes it away again. A hook of mmdebstrap(1): $1 is
# the folder of that Debian, whose /tmp has package.deb and where Debian's dropwatch is installed.
#
# Prints `passed: STEP` or `failed: STEP` for each step, and `end` after the last. Whoever runs this
# counts them.
set -u
root=$1
name=dropwatch-ebpf
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
    for page in $(inside dpkg -L $name | grep '/man1/.*\.gz$'); do
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
step 'installs over itself' inside dpkg --install $package
step 'is purged' inside dpkg --purge $name
step 'leaves nothing behind' nothing_left
echo end
