#!/usr/bin/env bash
# Makes the peers' virtual environments under .venv-peers, one each, so that
# what they need never becomes a requirement of ours.
#
#     bash benchmarks/peers/setup.sh [trl] [lean] [tunix]
#
# An environment that is complete is left alone; remove its folder to make it
# anew. Each holds `versions.txt`, written last.
set -euo pipefail
cd "$(dirname "$0")/../.."

make_peer() {
  local name=$1 folder=.venv-peers/$1
  shift
  if [ -e "$folder/versions.txt" ]; then
    echo "$name: $folder is there"
    return
  fi
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install -q --disable-pip-version-check "$@"
  "$folder/bin/pip" freeze > "$folder/versions.new"
  mv "$folder/versions.new" "$folder/versions.txt"
  echo "$name: made in $folder"
}

# The torch and transformers of our own tests, so that one release is compared.
torch="torch==2.13.0" transformers="transformers==5.24.0"
for name in "${@:-trl lean tunix}"; do
  for peer in $name; do
    case $peer in
      trl) make_peer trl trl==1.16.0 "$torch" "$transformers" datasets ;;
      lean) make_peer lean "$torch" numpy safetensors ;;
      tunix) make_peer tunix google-tunix==0.1.7 ;;
      *) echo "peer: expected trl, lean or tunix, got $peer" >&2; exit 2 ;;
    esac
  done
done
