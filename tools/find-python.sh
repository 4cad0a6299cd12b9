#!/bin/sh
# Print the interpreter that `make` uses. If there is none, say on stderr what is missing and what to do, and fail.
#
#   find-python.sh venv [PYTHON]   an interpreter that can make .venv: Python 3.11 to 3.13 with venv and ensurepip
#   find-python.sh torch [PYTHON]  an interpreter that has torch, if possible with a CUDA device; nothing is installed
#
# PYTHON, if given and not empty, is the only candidate.
purpose=$1
given=$2

fits_venv='
import sys
version = "Python " + ".".join(map(str, sys.version_info[:3]))
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(version + ": minillm needs 3.11, 3.12 or 3.13")
try:
    import ensurepip, venv
except ImportError as error:
    sys.exit("%s without the module %s: on Debian or Ubuntu, run `sudo apt install python%d.%d-venv`"
             % ((version, error.name) + sys.version_info[:2]))
'
# Exit status 3 means torch without a CUDA device. Such an interpreter is used if no other has a device.
fits_torch='
import sys
if sys.version_info < (3, 11):
    sys.exit("Python " + ".".join(map(str, sys.version_info[:3])) + ": minillm needs 3.11 or newer")
try:
    import torch
except Exception as error:
    sys.exit("cannot import torch: %s" % error)
sys.exit(0 if torch.cuda.is_available() else 3)
'

case $purpose in
  venv) test=$fits_venv candidates='python3.11 python3.12 python3.13 python3 python' ;;
  torch) test=$fits_torch candidates='python3 python python3.11 python3.12 python3.13 .venv/bin/python' ;;
  *) echo "usage: $0 venv|torch [PYTHON]" >&2; exit 2 ;;
esac

second=
tried=
if [ -n "$given" ]; then set -- "$given"; else set -- $candidates; fi
for python do
  if ! command -v "$python" >/dev/null 2>&1; then
    [ -z "$given" ] || tried="$tried
  $python: no such program"
    continue
  fi
  reason=$("$python" -c "$test" 2>&1)
  case $? in
    0) echo "$python"; exit 0 ;;
    3) [ -n "$second" ] || second=$python ;;
    *) tried="$tried
  $python: $(echo "$reason" | tail -n 1)" ;;
  esac
done
if [ -n "$second" ]; then echo "$second"; exit 0; fi

{
  if [ "$purpose" = venv ]; then
    echo "minillm needs Python 3.11, 3.12 or 3.13 with pip and venv. None was found."
  else
    echo "minillm's GPU tests need a Python 3.11 or newer that has torch. None was found."
  fi
  echo "These were tried:${tried:-
  $candidates: none of them on the PATH}"
  if [ "$purpose" = venv ]; then
    echo "Install one from https://www.python.org/downloads, your system's package manager, conda or pyenv. If you have"
    echo "one in another place, name it: make PYTHON=/path/to/python3.12 lab"
  else
    echo "Name a Python that has torch: make PYTHON=/path/to/python gpu"
  fi
} >&2
exit 1
