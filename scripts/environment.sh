# Sourced by quickstart.sh, test.sh and .ci/run: creates .venv in the repository and installs weftwork there.
#
#   set_up runtime        the dependencies of weftwork
#   set_up dev            also those of the optional group `dev`, for the tests
#   set_up docs           also those of the optional group `docs`, for the documentation site
#
# WEFTWORK_PYTHON selects another interpreter than python3. An installation is repeated only after a change of
# pyproject.toml, setup.py, constraints.txt or the interpreter.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

set_up() {
  local kind="$1" python="${WEFTWORK_PYTHON:-python3}" target=. stamp=".venv/weftwork-$1.stamp" wanted
  if [ "$kind" != runtime ]; then target=".[$kind]"; fi
  if ! [ -x .venv/bin/python ]; then
    make_venv "$python"
  fi
  wanted="$(cat pyproject.toml setup.py constraints.txt | sha256sum | cut -d ' ' -f 1) $(.venv/bin/python --version)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  echo "installing into .venv (once; torch is the largest download)"
  .venv/bin/python -m pip install --quiet --constraint constraints.txt "$(grep '^torch==' constraints.txt)"
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable "$target"
  echo "$wanted" > "$stamp"
}

make_venv() {
  if ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    echo "weftwork: got $("$1" --version 2>&1 || true), expected Python 3.11 or newer; install it or set WEFTWORK_PYTHON" >&2
    return 2
  fi
  if ! "$1" -m venv .venv; then
    rm -rf .venv
    echo "weftwork: $1 has no venv module; install it (Debian: apt install python3-venv)" >&2
    return 2
  fi
}
