#!/bin/bash
# One step on the machine with the card, from any folder: run.sh STEP [ARGUMENT...]. Steps are the functions below.
# OUT is where results go; SCRATCH keeps what earlier steps have unpacked and made.
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-$PWD/build/gpu-out}
export SCRATCH=${SCRATCH:-/opt/cotune}
for it in tests operator/src servers/src local-cluster/src simulation/src demo/src; do own="${own:-}$PWD/$it:"; done
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin PYTHONPATH=$own$SCRATCH/site PYTHONUNBUFFERED=1 OMP_NUM_THREADS=8
mkdir -p "$OUT" "$SCRATCH"

# What the machine is: goes into the record beside what was measured on it.
report() {
  {
    uname -a; date -u; nproc --all; free -m; df -h / /tmp
    nvidia-smi || true
    ls -la /dev/nvidia* /dev/nvidia-caps 2>/dev/null || true
    ls /usr/local/nvidia /usr/local/nvidia/bin /usr/local/nvidia/lib64 || true
    command -v nvidia-cuda-mps-control ip iptables nft runc mount unshare nsenter apt-get dpkg python3 xz zstd modprobe || true
    grep -E ' / | /tmp | cgroup| /usr/local/nvidia| /dev/shm | /opt' /proc/self/mounts
    cat /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/cgroup.subtree_control /proc/self/cgroup || true
    grep Cap /proc/self/status; ulimit -a
    zgrep -E 'NETFILTER|NF_|NFT_|IP_NF|BPF|CGROUP|OVERLAY|VETH|BRIDGE|SECCOMP|USER_NS|CPUSETS' /proc/config.gz || echo 'no /proc/config.gz'
    du -sh /opt/torch /usr /usr/local/nvidia /usr/local/cuda* 2>/dev/null || true
    env | sort
    python3 -m pip list 2>/dev/null || true
  } > "$OUT/machine.txt" 2>&1
  nvidia-smi -L
}

# Bundles, in any number of calls: run.sh install build/gpu-bundle ...
install() { python3 -m gpu.install "$@" --into "$SCRATCH"; }

# Checkpoints for the speech server, once all weights are there, and the language model's folder.
models() {
  python3 -m gpu.whisper_models "$SCRATCH/weights" "$SCRATCH/models/whisper"
  if [ -d "$SCRATCH/tokenizer" ]; then python3 -m gpu.llm_model tests/gpu/cases/voice-surface.json "$SCRATCH"; fi
}

# A surface: run.sh record CASE LIMIT-SECONDS SHARING [ARGUMENT...]
record() {
  local case=$1 limit=$2 mode=$3
  shift 3
  python3 -m gpu.record_surface "tests/gpu/cases/$case.json" --scratch "$SCRATCH" --out "$OUT/surface-$mode" \
    --sharing "$mode" --limit-seconds "$limit" --already-seconds "$SECONDS" "$@" 2>&1 | tee "$OUT/record-$mode.log"
}

# What vLLM finds out about an architecture once, kept where images of the cluster get it from: run.sh inspect ARCHITECTURE
inspect() {
  mkdir -p "$SCRATCH/vllm"
  HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CACHE_ROOT=$SCRATCH/vllm python3 -m gpu.inspect_models "$@"
}

# On a machine with several cards everything can run beside each other, longer than a call: run.sh beside NAME STEP [ARGUMENT...]
beside() {
  local name=$1
  shift
  mkdir -p "$SCRATCH/results/$name"
  OUT=$SCRATCH/results/$name setsid nohup bash "$PWD/tests/gpu/run.sh" "$@" > "$SCRATCH/results/$name.log" 2>&1 < /dev/null &
}

# The last lines of what runs beside, every so many seconds, so often: run.sh look SECONDS TIMES LINES
look() {
  for _ in $(seq "$2"); do
    sleep "$1"
    for it in "$SCRATCH"/results/*.log; do echo "--- ${it##*/}"; tail -n "$3" "$it" | cut -c1-300; done
  done
}

# All of its results so far, into $OUT, in parts that may be sent.
gather() { tar -c -C "$SCRATCH" results | split -b 15M - "$OUT/results.tar."; }

# The local Kubernetes with the card: run.sh cluster [ARGUMENT...]
cluster() {
  # Containers' file systems are overlays, and an overlay cannot be the upper side of another.
  if [ -z "${COTUNE_STATE:-}" ] && [ "$(stat -f -c %T /var/lib)" = overlayfs ]; then
    export COTUNE_STATE=/mnt/cotune-state
    mkdir -p $COTUNE_STATE
    mountpoint -q $COTUNE_STATE || mount -t tmpfs -o size=24g tmpfs $COTUNE_STATE
  fi
  python3 -m gpu.cluster_on_card --scratch "$SCRATCH" --out "$OUT" "$@" 2>&1 | tee -a "$OUT/cluster.log"
}

# Everything that needs no vLLM, on a machine that has this checkout with build/gpu-cluster-1 and -2: run.sh speech
speech() {
  report
  install build/gpu-cluster-1 build/gpu-cluster-2
  models
  cluster --job speech "$@"
}

"$@"
