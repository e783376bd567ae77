#!/usr/bin/env bash
# Installs, upgrades, tries out and removes the KLoROS orchestrator. `./install.sh --help` says how.
#
# Every version of the program has a folder of its own, `versions/<version>-<digest>`, and `bin/python` and
# `bin/klorosctl` are two-line scripts that lead to one of them. So an upgrade is one rename: a tick that starts
# meanwhile runs all old or all new, and a cycle that has been running for hours keeps importing what it began with.
#
# All other files are laid into a stage first, and brought to the host by orchestration/installation, which keeps
# a record of what was there before. Uninstalling and `klorosctl rollback-rollout` go by that record.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock=$here/.ci/requirements.txt
os_release=/etc/os-release
units=(kloros-orchestrator.service kloros-orchestrator.timer kloros-orchestrator.path kloros-loop.service
    kloros-cycle.service kloros-cycle.path kloros-alert@.service kloros-notice.service kloros-notice.path
    kloros-pulse.socket kloros-pulse.service kloros-bridge.service kloros-supervisor.service
    kloros-scope.service)
started_units=(kloros-orchestrator.timer kloros-orchestrator.path kloros-cycle.path kloros-notice.path)
user_units=(kloros-logrotate.service kloros-logrotate.timer) # beside those above, for one person
wanted="" # what --with says
stage="" # where files are laid before they are brought to the host
folders=(locks kick notices intents intents/processed signals promotions promotions_ack cycles baseline)

usage() {
    cat <<'END'
Usage:
  sudo ./install.sh               install for the whole host, or upgrade in place
       ./install.sh --user        the same for you alone, without root
       ./install.sh --try         set up in ./.try and run the main job on the example promotions
  sudo ./install.sh --uninstall   remove the program; state and settings stay
  sudo ./install.sh --uninstall --purge
                                  remove state, settings and the user kloros too
       ./install.sh --user --uninstall [--purge]

  --with federation,s3            with these extras of pyproject.toml; upgrades keep them, `--with none` drops them
To go back to what was before the last installation:  sudo klorosctl rollback-rollout
END
}

main() {
    local mode=system action=install purge=no
    while [[ $# -gt 0 ]]; do
        case $1 in
            --user) mode=user ;;
            --try) mode=try ;;
            --uninstall) action=uninstall ;;
            --purge) purge=yes ;;
            --with) [[ $# -gt 1 ]] || die 64 "--with needs a list: --with federation,s3" && wanted=$2 && shift ;;
            --with=*) wanted=${1#--with=} ;;
            -h | --help) usage && return ;;
            *) usage >&2 && die 64 "unknown option: $1" ;;
        esac
        shift
    done
    [[ $purge == no || $action == uninstall ]] || die 64 "--purge goes with --uninstall"
    [[ -z $wanted || $action == install ]] || die 64 "--with does not go with --uninstall"
    [[ -z $wanted ]] || need_known_extras "$wanted"
    case $mode-$action in
        system-install) need_root "" && set_places_system && install_system ;;
        system-uninstall) need_root " --uninstall" && set_places_system && uninstall_system "$purge" ;;
        user-install) need_no_root && set_places_user && install_user ;;
        user-uninstall) need_no_root && set_places_user && uninstall_user "$purge" ;;
        try-install) try ;;
        *) die 64 "--try leaves nothing behind but $here/.try: remove that folder" ;;
    esac
}

# --- saying things ----------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
warn() { printf '\n!! %s\n\n' "$*" >&2; }
die() {
    local code=$1
    shift
    printf 'install.sh: %s\n' "$*" >&2
    exit "$code"
}

need_root() {
    [[ $EUID -eq 0 ]] || die 77 "this needs root. Type:  sudo ./install.sh$1
  Without root:  ./install.sh --user  (for you alone)  or  ./install.sh --try  (only have a look)"
}

need_no_root() {
    [[ $EUID -ne 0 ]] || die 64 "--user installs for one person, and you are root. For the whole host: ./install.sh"
}

# --- places -----------------------------------------------------------------------------------------------------

set_places_system() {
    base=/opt/kloros
    state=/var/lib/kloros
    config=/etc/kloros/orchestrator.toml
    unit_folder=/etc/systemd/system
    link=/usr/local/bin/klorosctl
    share=/usr/local/share
    metrics=/var/lib/prometheus/node-exporter # of Debian's package prometheus-node-exporter
}

set_places_user() {
    base=$HOME/.local/share/kloros
    # Spelled out, because systemd 252 puts a user unit's StateDirectory= under ~/.config.
    state=${XDG_STATE_HOME:-$HOME/.local/state}/kloros
    config=${XDG_CONFIG_HOME:-$HOME/.config}/kloros/orchestrator.toml
    unit_folder=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    link=$HOME/.local/bin/klorosctl
    share=${XDG_DATA_HOME:-$HOME/.local/share}
    [[ $base$state$config =~ ^[A-Za-z0-9_./@:+-]+$ ]] ||
        die 1 "your home's path has characters that a systemd unit would need escaped: $HOME"
}

# --- the system's packages --------------------------------------------------------------------------------------

# Sets `python` (the interpreter to use) and `packages` (what apt has to bring for it).
choose_python() {
    local name version
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            python=$name
            # Only Debian's own interpreter gets its venv module from Debian's packages.
            [[ $(command -v "$name") == /usr/bin/* ]] || { packages=() && return; }
            packages=("$name" "$name-venv") && return
        fi
    done
    # Ubuntu 22.04's own python3 is 3.10.
    version=$(apt-cache policy python3 2>/dev/null | sed -n 's/^  Candidate: \(3\.[0-9]*\).*/\1/p')
    if [[ -n $version && ${version#3.} -lt 11 ]]; then python=python3.11; else python=python3; fi
    packages=("$python" "$python-venv")
}

need_supported_system() {
    local ID="" VERSION_ID="" PRETTY_NAME="this system" supported=no
    # shellcheck source=/dev/null
    [[ ! -r $os_release ]] || . "$os_release"
    case $ID in
        debian) [[ -n $VERSION_ID && ${VERSION_ID%%.*} -lt 12 ]] || supported=yes ;;
        ubuntu) [[ ${VERSION_ID%%.*} -lt 22 ]] || supported=yes ;;
    esac
    [[ $supported == yes ]] || die 1 "$PRETTY_NAME is not supported: it takes Debian 12 or later, or Ubuntu 22.04 or later.
  With Python 3.11 or later,  ./install.sh --try  and  ./install.sh --user  work on most systems."
}

brought=() # packages that this run installs
installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Install those of the packages that are missing; fails when apt does.
apt_install() {
    local package missing=()
    for package in "$@"; do installed "$package" || missing+=("$package"); done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "apt-get install ${missing[*]}"
    brought+=("${missing[@]}")
    if [[ ${apt_updated:-no} == no ]]; then
        apt-get update -qq || warn "apt-get update failed; going on with the package lists that are here"
        apt_updated=yes
    fi
    local output
    output=$(DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" 2>&1) ||
        { printf '%s\n' "$output" >&2 && return 1; }
}

# Have a Python that can make virtual environments, or say exactly how to get one.
need_python() {
    local packages=()
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        [[ -n $(find /var/lib/apt/lists -name '*Packages*' -print -quit 2>/dev/null) ]] || { apt-get update -qq && apt_updated=yes; }
        choose_python
        [[ ${#packages[@]} -eq 0 ]] || apt_install "${packages[@]}" ||
            die 1 "apt-get could not install ${packages[*]}; its own words are above"
    else
        choose_python
    fi
    "$python" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    [[ ${#packages[@]} -gt 0 ]] || packages=(python3 python3-venv)
    die 1 "Python 3.11 or later with its venv module is missing. Type:
  sudo apt-get update && sudo apt-get install ${packages[*]}
  and then this again. (On a system without apt: install Python 3.11 or later.)"
}

# --- one version of the program -----------------------------------------------------------------------------------

# Bundles are .tar.zst with the extra `bundle`, which is 5 MB and always there. `dev` is for tests, `journal` is tried
# by itself.
need_known_extras() {
    local name known
    known=" $(sed -n '/^\[project.optional-dependencies\]/,/^\[project\./ s/^\([a-z0-9]*\) = \[.*/\1/p' "$here/pyproject.toml" |
        grep -vx -e dev -e journal | tr '\n' ' ') none "
    for name in ${1//,/ }; do
        [[ $known == *" $name "* ]] || die 64 "--with: there is no extra $name; there is$known"
    done
}

# The extras as pip takes them: what --with says, else those of the installation that is there.
extras() {
    local remembered=${wanted:-$(cat "${base:-/nonexistent}/extras" 2>/dev/null || true)}
    tr -s ' ,' '\n' <<<"bundle $remembered" | grep -vx -e none -e '' | sort -u | paste -sd ,
}

# The version and a digest of all that it is made of: the same sources give the same folder.
version_name() {
    local version digest
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/pyproject.toml")
    digest=$(cd "$here" && {
        "$python" -c 'import sys; print(sys.version)'
        find orchestration systemd -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum
        sha256sum pyproject.toml .ci/requirements.txt
        extras
    } | sha256sum | cut -c1-10)
    printf '%s-%s' "$version" "$digest"
}

# Make a virtual environment with the program at $1, from nothing. $2: `journal` or `plain`.
make_environment() {
    local folder=$1 kind=$2
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-input --constraint "$lock" \
        "${here}[$(extras)]" ||
        die 1 "pip could not install the program; its own words are above"
    if [[ $kind == journal ]] && ! "$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --constraint "$lock" --use-pep517 systemd-python; then
        warn "systemd-python could not be compiled (its own words are above): the program works without it, but writes
   its log as JSON lines instead of journal fields. To have them, install gcc, pkg-config, libsystemd-dev and
   $python-dev, and run this again."
        : >"$folder/.without-journal"
    fi
    # It came with the environment, nothing needs it, and its hook costs every start of Python a millisecond.
    "$folder/bin/python" -m pip uninstall -qq --yes setuptools 2>/dev/null || true
    # With these, `klorosctl doctor` tells whether the installed units are those of this version.
    cp -r "$here/systemd" "$folder/systemd"
    # The units see this folder read-only: what is not compiled now would be compiled again by every tick.
    "$folder/bin/python" -m compileall -q "$folder/lib" >/dev/null || true
}

# Bring this version to $base/versions, and lay the scripts that lead to it. Sets `version`.
install_program() {
    local folder name
    version=$(version_name)
    folder=$base/versions/$version
    mkdir -p "$base/versions"
    if [[ -e $folder/.complete && ! -e $folder/.without-journal ]]; then
        say "$version is here already"
    else
        # Under its final name, because scripts in an environment spell out where it is. Nothing leads here yet, unless
        # this version is being repaired.
        make_environment "$folder" journal
        : >"$folder/.complete"
    fi
    lay 0644 "$here/README.md" "$base/README.md"
    extras | lay 0644 /dev/stdin "$base/extras"
    for name in python klorosctl; do launcher "$folder/bin/$name" | lay 0755 /dev/stdin "$base/bin/$name"; done
    mkdir -p "$(dirname "$stage$link")"
    ln -s "$base/bin/klorosctl" "$stage$link"
    lay_shell_files "$folder/bin/klorosctl"
}

# A script that runs $1.
launcher() {
    local settings=""
    # A user's own settings are not where the program looks first.
    # shellcheck disable=SC2016
    [[ $EUID -eq 0 ]] || settings='export KLR_CONFIG="${KLR_CONFIG:-'$config'}"'$'\n'
    printf '#!/bin/sh\n%sexec %s "$@"\n' "$settings" "$1"
}

# What makes klorosctl at home in a shell: its man page and completions, where each shell looks for them by itself.
lay_shell_files() {
    local shell
    lay 0644 "$here/docs/man/klorosctl.1" "$share/man/man1/klorosctl.1"
    for shell in bash zsh fish; do
        "$1" completion $shell 2>/dev/null >"$stage/completion" ||
            { warn "no completion for $shell: klorosctl completion $shell failed" && continue; }
        lay 0644 "$stage/completion" "$(completion_of $shell)"
    done
    rm -f "$stage/completion"
}

completion_of() {
    case $1 in
        bash) echo "$share/bash-completion/completions/klorosctl" ;;
        zsh) echo "$share/zsh/site-functions/_klorosctl" ;;
        fish) echo "$share/fish/vendor_completions.d/klorosctl.fish" ;;
    esac
}

# --- from the stage to the host -----------------------------------------------------------------------------------

open_stage() {
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
}

# Lay a file of mode $1 with the content of $2 where it is to be on the host: $3.
lay() { install -D -m "$1" "$2" "$stage$3"; }

# Have an errand done by orchestration/installation of this source, whatever is installed; it leaves no __pycache__ here.
record() {
    "$python" -IB -c 'import runpy, sys; sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("orchestration.installation", run_name="__main__")' "$here" --base "$base" "$@"
}

# Bring the stage to the host, and keep what it replaces. Sets `created`: the units that were not there before.
roll_out() {
    local before backup=""
    before=$(record running)
    [[ -z $before || $before == "$version" ]] || backup=$(back_up)
    created=$(record apply --stage "$stage" --kind "$1" --version "$version" --state "$state" --settings "$config" \
        --unit-folder "$unit_folder" --backup "$backup" --packages "${brought[*]}")
}

# Copy the store, so that it can be set back when the version before can't read what this one makes of it.
back_up() {
    local said
    if ! said=$(set_settings && "$base/versions/$version/bin/klorosctl" backup --json); then
        warn "the store could not be copied; the upgrade goes on, but klorosctl rollback-rollout may not be able to go back"
        return
    fi
    "$python" -I -c 'import json, sys; print(json.load(sys.stdin)["path"] or "")' <<<"$said"
}

set_settings() { [[ $EUID -eq 0 ]] || export KLR_CONFIG="${KLR_CONFIG:-$config}"; }

# Everything that an installation lays down, whatever its version.
all_paths() {
    local unit shell
    for unit in "${units[@]}"; do echo "$unit_folder/$unit"; done
    for shell in bash zsh fish; do completion_of $shell; done
    printf '%s\n' "$share/man/man1/klorosctl.1" "$link" "$base/bin/python" "$base/bin/klorosctl" "$base/README.md" \
        "$base/extras" "$@"
}

# Take back all that installations did; what was there before the first one is there again.
remove_program() {
    local kind=$1 paths packages python
    shift
    choose_python
    command -v "$python" >/dev/null || python=$base/bin/python
    mapfile -t paths < <(all_paths "$@")
    record remove --kind "$kind" "${paths[@]}"
    [[ ! -e $base ]] || say "What is in $base is not ours and stays: $(ls -A "$base")"
}

install_config() {
    if [[ -e $config ]]; then
        say "$config stays as it is"
        return
    fi
    mkdir -p "$(dirname "$config")"
    sed -e "s#/var/lib/kloros#$state#g" "$here/systemd/orchestrator.toml" >"$config"
    # node_exporter's folder is not a user's to write, and not the default of a user's state.
    [[ $EUID -eq 0 ]] || sed -i "s#^\# textfile = .*#\# textfile = \"$state/kloros.prom\"#" "$config"
    chmod 0644 "$config"
    say "$config is new: every setting is in it, as a comment, with its default"
}

# --- the whole host ---------------------------------------------------------------------------------------------

host_files=(/etc/sysusers.d/kloros.conf /etc/tmpfiles.d/kloros.conf /etc/logrotate.d/kloros)

install_system() {
    local unit python version created
    need_supported_system
    step "Packages"
    need_python
    apt_install gcc pkg-config libsystemd-dev "$(basename "$python")-dev" ||
        warn "what systemd-python is compiled with could not be installed; see apt's own words above"
    step "Program in $base"
    open_stage
    install_program
    lay 0644 "$here/systemd/sysusers.d/kloros.conf" /etc/sysusers.d/kloros.conf
    lay 0644 "$here/systemd/tmpfiles.d/kloros.conf" /etc/tmpfiles.d/kloros.conf
    lay 0644 "$here/systemd/logrotate/kloros" /etc/logrotate.d/kloros
    for unit in "${units[@]}"; do lay 0644 "$here/systemd/$unit" "$unit_folder/$unit"; done
    roll_out system
    step "User, folders, settings"
    systemd-sysusers /etc/sysusers.d/kloros.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/kloros.conf
    open_metrics_folder
    install_config
    step "Units"
    ! grep -qs '^Environment=KLR_ORCHESTRATION_MODE=disabled' "$unit_folder/kloros-orchestrator.service" ||
        say "KLR_ORCHESTRATION_MODE=disabled stays, as it was set in kloros-orchestrator.service"
    start_units
    record finish
    record tidy
    next_steps "" "sudo "
}

# Let the group kloros leave kloros.prom in node_exporter's folder. By dpkg's own list of overrides, because it also
# counts when that package is installed after us, and because systemd-tmpfiles refuses the path (its parent is owned by
# another user than root).
open_metrics_folder() {
    dpkg-statoverride --list "$metrics" >/dev/null || dpkg-statoverride --update --add root kloros 0775 "$metrics"
}

# Enable what was not there before: what an operator has switched off since stays off.
start_units() {
    local unit user=() new=() known=()
    [[ $EUID -eq 0 ]] || user=(--user)
    for unit in "${started_units[@]}"; do
        if grep -qxF "$unit" <<<"$created"; then new+=("$unit"); else known+=("$unit"); fi
    done
    if [[ $EUID -eq 0 && ! -d /run/systemd/system ]]; then
        [[ ${#new[@]} -eq 0 ]] || systemctl enable --quiet "${new[@]}"
        warn "systemd does not run here: the units are enabled and start at the next boot"
        return
    fi
    systemctl "${user[@]}" daemon-reload ||
        { warn "systemd does not answer here: the units are in $unit_folder and not started" && return; }
    if [[ ${#new[@]} -gt 0 ]]; then
        systemctl "${user[@]}" enable --quiet --now "${new[@]}"
        say "enabled and started: ${new[*]}"
    fi
    [[ ${#known[@]} -gt 0 ]] || return 0
    # Take up what changed in them. The running cycle's own unit is left alone.
    for unit in "${known[@]}" kloros-pulse.socket kloros-pulse.service kloros-bridge.service kloros-supervisor.service; do systemctl "${user[@]}" try-restart "$unit"; done
    say "upgraded; units that were off stay off"
}

next_steps() {
    cat <<END

$version is installed. What to type next:

  ${2}klorosctl status
  ${2}klorosctl doctor
  systemctl ${1}list-timers kloros-orchestrator.timer
  journalctl ${1}-u kloros-orchestrator.service -f

  Settings: $config      State: $state
END
}

uninstall_system() {
    local purge=$1
    remove_program system "${host_files[@]}"
    if [[ $purge == no ]]; then
        say "Removed. State in $state, settings in $(dirname "$config") and the user kloros are kept;"
        say "to remove them too:  sudo ./install.sh --uninstall --purge"
        return
    fi
    rm -rf "$state" "$(dirname "$config")" "$unit_folder"/kloros-*.d
    rm -f /var/lib/systemd/timers/stamp-kloros-orchestrator.timer
    ! id kloros >/dev/null 2>&1 || userdel kloros
    say "Removed, with state, settings and the user kloros."
}

# --- one person -------------------------------------------------------------------------------------------------

install_user() {
    local unit python version folder created
    step "Python"
    need_python
    step "Program in $base"
    open_stage
    install_program
    for unit in "${units[@]}" "${user_units[@]/#/user/}"; do
        user_unit "$here/systemd/$unit" | lay 0644 /dev/stdin "$unit_folder/${unit#user/}"
    done
    sed -e '/^ *su /d' -e "s#/var/lib/kloros#$state#g" "$here/systemd/logrotate/kloros" |
        lay 0644 /dev/stdin "$base/logrotate.conf"
    started_units+=(kloros-logrotate.timer)
    for folder in "" "${folders[@]}"; do install -d -m 0700 "$state/$folder"; done
    roll_out user
    step "Folders, settings"
    install_config
    step "Units"
    start_units
    record finish
    record tidy
    next_steps "--user " ""
    say "  To go on ticking while you are not logged in:  sudo loginctl enable-linger $USER"
    [[ :$PATH: == *:$(dirname "$link"):* ]] || say "  $(dirname "$link") is not in your PATH yet."
}

# A unit of the whole host, as one person's: paths of their own, no user to change to, and without those
# confinements that only the system's manager can set up.
user_unit() {
    sed -e '/^# \[system manager only/,/^# \[\/system manager only\]/d' \
        -e '/^User=/d; /^Group=/d; /^StateDirectory/d; /^CapabilityBoundingSet=/d; /^AmbientCapabilities=/d' \
        -e "s#/opt/kloros#$base#g; s#/var/lib/kloros#$state#g; s#/etc/systemd/system#$unit_folder#g" \
        -e "s#^Environment=KLR_ORCHESTRATION_MODE=.*#&\nEnvironment=KLR_CONFIG=$config#" "$1"
}

uninstall_user() {
    local purge=$1
    remove_program user "${user_units[@]/#/$unit_folder/}" "$base/logrotate.conf"
    if [[ $purge == no ]]; then
        say "Removed. State in $state and settings in $(dirname "$config") are kept;"
        say "to remove them too:  ./install.sh --user --uninstall --purge"
        return
    fi
    rm -rf "$state" "$(dirname "$config")" "$unit_folder"/kloros-*.d
    rm -f "${XDG_DATA_HOME:-$HOME/.local/share}/systemd/timers/"stamp-kloros-*.timer
    say "Removed, with state and settings."
}

# --- a look at it ------------------------------------------------------------------------------------------------

# Needs no systemd and no root (beyond packages). Everything is in one folder that can be removed.
try() {
    local folder=$here/.try python version example environment
    example=$here/docs/examples
    mkdir -p "$folder" 2>/dev/null && [[ -w $folder ]] || folder=$(mktemp -d -t kloros-try-XXXXXX)

    step "1. Setting up in $folder"
    need_python
    version=$(version_name)
    environment=$folder/versions/$version
    if [[ ! -e $environment/.complete ]]; then
        rm -rf "$folder/versions"
        mkdir -p "$folder/versions"
        make_environment "$environment" plain
        : >"$environment/.complete"
    fi
    rm -rf "$folder/state" "$folder/example"
    cp -r "$example" "$folder/example"
    try_state "$folder/state" "$folder/example"
    say "program    $version, in its own virtual environment"
    say "settings   $folder/example/orchestrator.toml"
    say "state      $folder/state, fresh"
    try_command "$folder" "$environment" >"$folder/klorosctl"
    chmod +x "$folder/klorosctl"
    say "command    $folder/klorosctl, which knows these places"
    export PATH=$folder:$PATH
    try_cycle "$folder/state"
    try_next "$folder"
}

try_state() {
    local state=$1 example=$2 folder
    for folder in "${folders[@]}"; do install -d -m 0700 "$state/$folder"; done
    cp "$example"/promotions/*.json "$state/promotions/"
    cp "$example/baseline.json" "$state/baseline/baseline.json"
}

try_cycle() {
    local state=$1 round
    step "2. Three promotions wait for an answer; the baseline is what they are measured against"
    say "baseline: $(tr -d '\n ' <"$state/baseline/baseline.json")"
    shown klorosctl promotions list

    step "3. What would a tick do now, and why?"
    shown klorosctl explain

    step "4. Ticks: the trial is run five times with the baseline and with each promotion"
    # One for the cycle, one to settle it; one more in the one minute a day in which the example has its PHASE window.
    for round in 1 2 3 4; do
        shown klorosctl tick --wait || warn "tick $round ended with $?"
        [[ $(find "$state/promotions_ack" -name '*.json' | wc -l) -lt 3 ]] || break
    done

    step "5. Every promotion has its answer"
    for round in "$state"/promotions_ack/*.json; do
        say "$(basename "$round")"
        cat "$round"
        say ""
    done
    say "The baseline is now: $(tr -d '\n ' <"$state/baseline/baseline.json")"
    shown klorosctl show 1

    step "6. Nothing is left to do, so the next tick is a NOOP, with its reasons"
    shown klorosctl tick
    shown klorosctl explain
}

# klorosctl for this trial alone: whatever else is installed or set, it acts on this folder.
try_command() {
    cat <<END
#!/bin/sh
export KLR_CONFIG='$1/example/orchestrator.toml' KLR_STATE_DIR='$1/state' KLR_TEXTFILE='$1/state/kloros.prom'
export KLR_LAUNCHER=detached KLR_ORCHESTRATION_MODE=enabled PATH='$2/bin':"\$PATH"
exec '$2/bin/klorosctl' "\$@"
END
}

shown() {
    printf '\n$ %s\n' "$*"
    "$@"
}

try_next() {
    local command=$1/klorosctl
    [[ $1 != "$PWD/.try" ]] || command=.try/klorosctl
    cat <<END

== It works. What to type next

  $command status
  $command logs 1
  $command forecast --days 7
  $command intents add curiosity_demo --priority 5 --reason "see what an intent does"
  $command tick --wait

To have it tick every minute:
  sudo ./install.sh       for the whole host
  ./install.sh --user     for you alone
To remove this trial:  rm -r $1
END
}

# Sourced, it only defines; the tests take single steps from it.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
