#!/bin/sh
# Fetches what the snippets of docs/deploy.md need into a folder: ONNX Runtime for Node.js, and, where the system has no
# libonnxruntime-dev to install, the headers of Debian 13's. As root with apt the compiler's other packages are installed too.
set -e
folder=$1
npm=onnxruntime-node@1.30.0 # with 1.30 of the shared library beside it
later=trixie                # the first Debian that has libonnxruntime-dev

as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
quietly() { "$@" >"$folder/log" 2>&1 || { tail -3 "$folder/log" >&2; return 1; }; }

mkdir -p "$folder"
if as_root; then
  export DEBIAN_FRONTEND=noninteractive
  missing=
  command -v npm >/dev/null || missing="$missing nodejs npm"
  command -v c++ >/dev/null || missing="$missing g++"
  [ -e /usr/include/sndfile.hh ] || missing="$missing libsndfile1-dev"
  [ -e /usr/include/nlohmann/json.hpp ] || missing="$missing nlohmann-json3-dev"
  quietly apt-get update -qq
  [ -z "$missing" ] || quietly apt-get install -y -qq --no-install-recommends $missing \
    || echo "Not installed:$missing; the tests that need them will skip." >&2
  quietly apt-get install -y -qq --no-install-recommends libonnxruntime-dev 2>/dev/null || true
fi
[ -d "$folder/node_modules/onnxruntime-node" ] || quietly npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund "$npm"
if as_root && ! [ -e /usr/include/onnxruntime ] && ! [ -e "$folder/usr" ] && [ -f /etc/apt/sources.list.d/debian.sources ]; then
  apt=$(cd "$folder" && pwd)/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  sed -e '/^$/q' /etc/apt/sources.list.d/debian.sources | sed -E "s/^Suites: .*/Suites: $later/" >"$apt/debian.sources"
  set -- -o Dir::Etc::sourcelist="$apt/debian.sources" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$apt/lists" \
    -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root
  quietly apt-get "$@" update -qq
  (cd "$apt" && apt-get "$@" download -qq libonnxruntime-dev)
  dpkg-deb -x "$apt"/libonnxruntime-dev_*.deb "$folder"
  rm -r "$apt"
fi
