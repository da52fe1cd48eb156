#!/bin/bash
# Pretraining on a TPU VM of one host (v4-8, v5litepod-8 ...), from the root of a clone:
#
#   examples/launch/tpu_vm.sh NAME ZONE --recipe=coco --data_dir=/data/coco
#
# The words behind the zone are flags of slotcon-pretrain; paths are the VM's, and images
# have to be there (a disk with them: TPU_DISK=projects/P/zones/Z/disks/D, at /data). The
# VM is made if there is none of that name, gets this clone's last commit, and trains on
# when you log out. The same command after a restart of the VM goes on.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 NAME ZONE [flags of slotcon-pretrain]" >&2
    exit 2
fi
name=$1 zone=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
tpu=(gcloud compute tpus tpu-vm)
archive=$(mktemp --suffix=.tgz)
trap 'rm -f "$archive"' EXIT

on_vm() {
    "${tpu[@]}" ssh "$name" --zone="$zone" --command="$1"
}

if ! "${tpu[@]}" describe "$name" --zone="$zone" >/dev/null 2>&1; then
    "${tpu[@]}" create "$name" --zone="$zone" \
        --accelerator-type="${TPU_TYPE:-v4-8}" \
        --version="${TPU_VERSION:-tpu-ubuntu2204-base}" \
        ${TPU_DISK:+--data-disk="source=$TPU_DISK,mode=read-only"}
fi
git -C "$root" archive --format=tgz --prefix=slotcon/ -o "$archive" HEAD
"${tpu[@]}" scp "$archive" "$name:slotcon.tgz" --zone="$zone"

# TensorFlow for TPUs and the one of the package registry are different builds, and pip
# must not put the second on top: docs/install.md.
on_vm 'set -e
if [ -b /dev/sdb ] && ! mountpoint -q /data; then
    sudo mkdir -p /data && sudo mount -o ro,noload /dev/sdb /data
fi
tar -xzf slotcon.tgz
if [ ! -x venv/bin/slotcon-pretrain ]; then
    sudo apt-get -q update && sudo apt-get -qy install python3.11-venv
    python3.11 -m venv venv
    venv/bin/pip install -q tensorflow-tpu -f https://storage.googleapis.com/libtpu-tf-releases/index.html
    venv/bin/pip install -q "keras>=3.10" absl-py contourpy h5py importlib_resources matplotlib numba numpy pillow rich scipy tensorboard tqdm
    venv/bin/pip install -q --no-deps tensorflow-datasets
    venv/bin/pip install -q array_record dm-tree etils fsspec immutabledict promise psutil pyarrow simple_parsing tensorflow-metadata toml wrapt
fi
venv/bin/pip install -q --no-deps ./slotcon'

on_vm "setsid nohup venv/bin/slotcon-pretrain --tpu=local $(printf '%q ' "$@")>>train.log 2>&1 </dev/null & sleep 20; tail -n 20 train.log"
echo "Its log: ${tpu[*]} ssh $name --zone=$zone --command='tail -f train.log'"
