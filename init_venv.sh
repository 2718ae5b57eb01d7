#!/usr/bin/env bash
# Makes a virtual environment with this package in editable mode. Running it again only completes it.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./init_venv.sh [PATH] [--index-url URL] [--dev]

  PATH             the virtual environment to make or complete (default: venv)
  --index-url URL  package index for torch and torchvision alone, for a CPU-only or a CUDA build;
                   without it they come from pip's configured index like everything else
  --dev            also install what tests and linters need

The interpreter is python3, or python3.11 and later ones when that is too old; PYTHON=... overrides.
TEXT
}

fail() {
    echo "error: $*" >&2
    exit 2
}

path=""
index_url=""
target="."
while (($#)); do
    case "$1" in
        --index-url)
            (($# > 1)) || fail "--index-url needs a URL"
            index_url="$2"
            shift
            ;;
        --index-url=*) index_url="${1#*=}" ;;
        --dev) target=".[dev]" ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*) fail "unknown option '$1'; see ./init_venv.sh --help" ;;
        *)
            [[ -z "$path" ]] || fail "more than one path: '$path' and '$1'"
            path="$1"
            ;;
    esac
    shift
done
path="${path:-venv}"
[[ "$path" == /* ]] || path="$PWD/$path"
cd "$(dirname "${BASH_SOURCE[0]}")"

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        is_recent "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or later"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed and none was found ($(python3 --version 2>&1 || true));" \
        "install one, or name it: PYTHON=/path/to/python3.11 ./init_venv.sh"
}

# Without pip it is one whose making failed or was interrupted; making it again completes it.
if is_recent "$path/bin/python" && "$path/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "== using the environment $path"
else
    python="$(find_python)"
    echo "== making the environment $path with $("$python" --version)"
    "$python" -m venv "$path" || fail "'$python -m venv' failed; on Debian: apt install python3-venv"
fi

install() {
    "$path/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt "$@"
}

if [[ -n "$index_url" ]]; then
    echo "== installing torch and torchvision from $index_url"
    install --index-url "$index_url" torch torchvision
fi
echo "== installing this package with its dependencies (the first time: some minutes)"
install --editable "$target"
echo "== ready: source '$path/bin/activate'"
