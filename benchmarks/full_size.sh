#!/bin/sh
# The paper's zoo at full size, for one GPU: every architecture at width 64 on CIFAR-10, 20
# models per attack and 20 clean ones, in bfloat16; then one scan and the repairs of each zoo.
#
#   DATA=cifar10 OUT=full sh benchmarks/full_size.sh
#
# Every step goes on where it was stopped: kill it, and run it again. ARCHS, SEEDS, EPOCHS
# and CHUNK make it smaller; DATA may be an .npz with train_images, train_labels,
# test_images and test_labels.
set -eu
DATA=${DATA:-cifar10}
OUT=${OUT:-full}
ARCHS=${ARCHS:-"resnet18 vgg16 densenet121"}
SEEDS=${SEEDS:-20}
EPOCHS=${EPOCHS:-100}
CHUNK=${CHUNK:-5}
ATTACKS=${ATTACKS:-clean,badnets,blend,wanet,iad,bpp,adap_blend,ssdt}

for arch in $ARCHS; do
    ban-jax train --out "$OUT/$arch" --arch "$arch" --width 64 --precision bfloat16 \
        --data "$DATA" --attacks "$ATTACKS" --targets 0,1,2,3,4,5,6,7,8,9 \
        --cycle-targets --seeds "$SEEDS" --epochs "$EPOCHS" --batch-size 128 \
        --learning-rate 0.1 --chunk "$CHUNK" --save-minutes 5 --adap-blend.rate 0.01
    python -m benchmarks.attack_quality "$OUT/$arch" --name "full_size_$arch"
    python -m benchmarks.zoo_scan "$OUT/$arch" --data "$DATA" --out "$OUT/scan_$arch" \
        --name "full_size_scan_$arch"
    python -m benchmarks.repair_quality --zoo "$OUT/$arch" --data "$DATA" \
        --num-test 10000 --name "full_size_repair_$arch" --ban.budget 1 \
        --finetune.budget 1
done
