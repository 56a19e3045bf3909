#!/bin/sh
# Trains the models of this folder: CIFAR-10 at 32x32, narrow and short-trained on purpose.
#
#     sh benchmarks/zoo/train.sh TFDS FOLDER
#
# TFDS is TensorFlow Datasets' folder with CIFAR-10, FOLDER receives one zoo per line below.
# Lines are ordered so that wherever it is stopped recipes and attacks are mixed; the same
# command goes on. `python -m benchmarks.zoo_pack FOLDER/* --out benchmarks/zoo` packs them.
set -eu
TFDS=$1 FOLDER=$2

ATTACKS="--badnets.rate 0.1 --blend.rate 0.1 --wanet.strength 2 --wanet.rate 0.2
  --wanet.cover 0.5 --bpp.levels 4 --iad.rate 0.15 --iad.width 8 --adap-blend.rate 0.03
  --ssdt.width 8"
COMMON="--data cifar10 --data-dir $TFDS --num-train 25000 --num-test 2000 --batch-size 64
  --stamp-last --no-orbax --cycle-targets $ATTACKS"
onecycle="--epochs 3 --learning-rate 0.1 --crop 0"
step="--epochs 4 --learning-rate 0.05 --schedule step --crop 2"
adamw="--epochs 3 --learning-rate 0.003 --optimizer adamw --weight-decay 0.01 --crop 0 --no-flip"
smooth="--epochs 3 --learning-rate 0.1 --weight-decay 0.002 --label-smoothing 0.1 --crop 2"
warm="--epochs 2 --learning-rate 0.03 --crop 0
  --start-from $FOLDER/00_onecycle/resnet18_w8_clean_s0.safetensors"

# train NUMBER RECIPE ARCH WIDTH FIRST_SEED SEEDS TARGETS ATTACKS
train() {
  eval "recipe=\$$2"
  # shellcheck disable=SC2086 # options are words
  ban-jax train --out "$FOLDER/$1_$2" --arch "$3" --width "$4" --first-seed "$5" \
    --seeds "$6" --targets "$7" --attacks "$8" $COMMON $recipe
}

train 00 onecycle resnet18 8 0 3 0 clean
train 01 onecycle resnet18 8 0 1 0,3,6 badnets,blend,wanet
train 02 adamw resnet18 8 20 1 2,5 badnets,blend
train 03 step resnet18 8 10 2 0 clean
train 04 smooth resnet18 8 30 2 0 clean
train 05 onecycle resnet18 8 0 1 4,8,1,7 iad,bpp,adap_blend,ssdt
train 06 adamw resnet18 8 20 2 0 clean
train 07 smooth resnet18 8 30 1 1,4,7 badnets,blend,bpp
train 08 step resnet18 8 10 1 8,2,5 badnets,blend,wanet
train 09 warm resnet18 8 40 2 0 clean
train 10 warm resnet18 8 40 1 9,6,3 badnets,blend,bpp
train 11 onecycle preact_resnet18 8 50 2 0 clean
train 12 onecycle vgg16 8 60 2 0 clean
train 13 onecycle preact_resnet18 8 50 1 5,9,2 badnets,blend,wanet
train 14 adamw resnet18 8 20 1 8,0,6,3 wanet,iad,bpp,adap_blend
train 15 onecycle vgg16 8 60 1 4,1,8 badnets,blend,bpp
train 16 smooth resnet18 8 30 1 9,3,5 wanet,iad,adap_blend
train 17 step resnet18 8 10 1 0,6,9 iad,bpp,adap_blend
train 18 warm resnet18 8 40 1 1,7,0 wanet,iad,adap_blend
train 19 step preact_resnet18 8 15 1 0 clean
train 20 smooth preact_resnet18 8 35 1 0 clean
train 21 adamw vgg16 8 25 1 0 clean
train 22 onecycle resnet18 16 70 2 0 clean
train 23 onecycle resnet18 16 70 1 7,3 badnets,blend
train 24 onecycle densenet121 8 80 1 0 clean
train 25 onecycle densenet121 8 80 1 6 badnets
train 26 onecycle preact_resnet18 8 50 1 4,0,7 iad,bpp,adap_blend
train 27 onecycle resnet18 8 5 2 2,5 ssdt
train 28 onecycle resnet18 8 90 2 0 clean
train 29 step resnet18 8 90 1 0 clean
train 30 adamw resnet18 8 90 1 0 clean
train 31 smooth resnet18 8 90 1 0 clean
