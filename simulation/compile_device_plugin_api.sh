#!/usr/bin/env bash
# Compiles deviceplugin.proto again. Needs Python with grpcio-tools, and protobuf not older than its compiler in the images.
set -euo pipefail
cd "$(dirname "$0")/src/cotune_simulation/device_plugin"
"${PYTHON:-python3}" -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. deviceplugin.proto
for file in deviceplugin_pb2.py deviceplugin_pb2.pyi; do
  printf '%s\n' '# ruff: noqa' '# fmt: off' '# type: ignore' | cat - "$file" >"$file.marked"
  mv "$file.marked" "$file"
done
