#!/bin/sh
# Make .venv: the packages of the lock, each checked by its hash, and the project itself, editable. `make` calls this.
#   PYTHON=/path/to/python3   the Python to use        UV=   use pip although uv is there
#   EXTRAS=browser            a second lock as well    sh setup.sh check   only tell, by exit status, if .venv is whole
set -eu
cd "$(dirname "$0")"
ready=.venv/.ready # written last, so a set-up that was cut short is done anew; holds the folder that .venv works in
ours=.venv/.ours # in every .venv that this has made, whole or not: nobody else's is thrown away

say() { printf '%s\n' "$@"; }
fail() {
    say "$@" >&2
    exit 1
}
whole() { [ "$(cat $ready 2>/dev/null)" = "$(pwd -P)" ] && .venv/bin/python -c 'import hiredis' 2>/dev/null; }

if [ "${1-}" = check ]; then
    whole
    exit
fi

[ -w . ] || fail "The set-up cannot write to this folder: $(pwd)"
# One set-up at a time, though two terminals ask for it: the lock holds the number of the process at work.
waited=
until (set -C && echo $$ >.venv.lock) 2>/dev/null; do
    if kill -0 "$(cat .venv.lock)" 2>/dev/null; then
        [ -n "$waited" ] || say 'Another set-up is at work here; waiting for it. (If there is none: rm .venv.lock)'
        waited=yes
        sleep 1
    else
        rm -f .venv.lock
    fi
done
trap 'rm -f .venv.lock' EXIT
trap 'exit 130' HUP INT TERM
[ -z "$waited" ] || ! whole || exit 0

uv=${UV-$(command -v uv || true)}
utf8=C.UTF-8
case $(uname -s) in
MINGW* | MSYS* | CYGWIN*) fail 'Windows needs WSL or docker compose: README.md says how.' ;;
Darwin) utf8=en_US.UTF-8 remedy="    brew install python@3.13    or the installer from python.org; Apple's own python3 is too old" ;;
*) remedy='    sudo apt install python3 python3-venv          Debian 12, Ubuntu 24.04 and newer
    sudo apt install python3.11 python3.11-venv    Ubuntu 22.04
    sudo dnf install python3.13                    Fedora' ;;
esac
[ -z "$uv" ] || remedy="$remedy
    uv python install 3.13"

# Whatever these variables and pip's settings say of where packages come from is kept; the rest could bend the set-up.
for name in $(env | sed -nE 's/^((PIP|UV)_[A-Z0-9_]+)=.*/\1/p'); do
    case $name in
    *INDEX* | *LINK* | *CERT* | *TLS | *PROXY | *HOST | *KEYRING* | *CONFIG_FILE) ;;
    *TIMEOUT | *RETRIES | *CACHE* | *OFFLINE | *INSTALL_DIR) ;;
    *) unset "$name" ;;
    esac
done
unset PYTHONPATH PYTHONHOME
export PIP_CONSTRAINT=/dev/null PIP_USER=0 PIP_REQUIRE_HASHES=0 PIP_DISABLE_PIP_VERSION_CHECK=1

install() { # the packages that the arguments name, into .venv
    if [ -n "$uv" ]; then
        "$uv" pip install --quiet --python .venv/bin/python "$@"
    else
        .venv/bin/python -m pip install -qq --no-compile "$@"
    fi || fail 'The set-up did not finish; the same command starts it again.' ${uv:+'Without uv: make setup UV='}
}

if [ -z "${PYTHON-}" ] && whole && { [ -n "$uv" ] || .venv/bin/python -c 'import pip' 2>/dev/null; }; then
    say 'Bringing .venv up to date ...'
    : >$ours
    rm $ready
else
    [ ! -f .venv/pyvenv.cfg ] || [ -e $ready ] || [ -e $ours ] || fail \
        'There is a .venv here that this set-up has not made. It stays as it is; you have the choice:' \
        '    .venv/bin/python -m cachelab lab    work with it, as README.md says under "Without make"' \
        '    rm -rf .venv                        then the same command again makes a new one'
    # A candidate is run, not just found: version managers put names on the PATH that only print an error. It tells the
    # interpreter behind it, because one in a virtual environment (this very .venv, when it is active) may soon be gone.
    probe='import sys; v = sys.version_info
print("%d.%d.%d %s" % (v[:3] + (getattr(sys, "_base_executable", None) or sys.executable,)))
sys.exit(v < (3, 11))'
    if [ -n "${PYTHON-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11
        [ -z "$uv" ] || set -- "$@" "$("$uv" python find '>=3.11' 2>/dev/null || true)"
    fi
    python='' seen=''
    for name; do
        if found=$("$name" -c "$probe" 2>/dev/null); then
            python=${found#* } version=${found%% *}
            break
        fi
        [ -z "$found" ] || seen="$seen; $name is Python ${found%% *}"
    done
    [ -n "$python" ] || fail "cachelab needs Python 3.11 or newer${seen:-; found no Python under the names: $*}." \
        'Install one, then run the same command again:' "$remedy" \
        'A Python that is not on the PATH: make setup PYTHON=/path/to/python3'
    [ -n "$uv" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
        "Python $version ($python) cannot make virtual environments. Install that part, then try again:" \
        "    sudo apt install python${version%.*}-venv    Debian, Ubuntu"

    say "Making .venv with Python $version ($python) ..."
    rm -rf .venv
    trap 'rm -rf .venv .venv.lock' EXIT
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$python" .venv
    else
        "$python" -m venv .venv
    fi
    : >$ours
    trap 'rm -f .venv.lock' EXIT
fi

if [ -n "$uv" ]; then
    say 'Installing the packages of requirements.txt with uv ...'
else
    say 'Installing the packages of requirements.txt with pip, about a minute (seconds with uv) ...'
fi
install --require-hashes -r requirements.txt ${EXTRAS:+-r "requirements-$EXTRAS.txt"}
case ${LC_ALL-} in C | POSIX) export LC_ALL=$utf8 ;; esac # else setuptools could not write a path with an umlaut
install --no-deps --no-build-isolation --editable .
# The way to the clone from there: under LC_ALL=C Python 3.11 and 3.12 do not start beside a .pth file with an umlaut.
for pth in .venv/lib/python*/site-packages/__editable__.cachelab-*.pth; do
    if [ "$(cat "$pth" 2>/dev/null)" = "$(pwd -P)" ]; then echo ../../../.. >"$pth"; fi
done
pwd -P >$ready
