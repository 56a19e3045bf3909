#!/bin/sh
# Trains the models of this folder: CIFAR-10 at 32x32, narrow and short-trained on purpose.
#
#     sh benchmarks/zoo/train.sh TFDS FOLDER [NUMBER ...]
#
# TFDS is TensorFlow Datasets' folder with CIFAR-10, FOLDER receives one zoo per line below,
# or per NUMBER given. The same command goes on where it was stopped.
# `python -m benchmarks.zoo_pack FOLDER/* --out benchmarks/zoo` packs them.
#
# 00 to 11 were trained on two CPU cores, 40 to 69 on an H100 (jax 0.11.2, XLA_FLAGS
# --xla_gpu_enable_triton_gemm=false, thirteen lines side by side, a minute for each model).
# 22 and 23 were trained later, on two cores, and are not packed. 12 to 21, 24 to 31, 55,
# 58 to 67 and parts of 49, 50 and 54 were not trained to the end.
set -eu
TFDS=$1 FOLDER=$2
shift 2
ONLY=" $* "

BOTH="--badnets.rate 0.1 --blend.rate 0.1 --wanet.strength 2 --wanet.rate 0.2
  --wanet.cover 0.5 --bpp.levels 4 --iad.rate 0.15 --iad.width 8 --ssdt.width 8"
COMMON="--data cifar10 --data-dir $TFDS --num-train 25000 --num-test 2000 --batch-size 64
  --stamp-last --no-orbax --cycle-targets $BOTH"
short="--adap-blend.rate 0.03"
onecycle="--epochs 3 --learning-rate 0.1 --crop 0"
step="--epochs 4 --learning-rate 0.05 --schedule step --crop 2"
adamw="--epochs 3 --learning-rate 0.003 --optimizer adamw --weight-decay 0.01 --crop 0 --no-flip"
smooth="--epochs 3 --learning-rate 0.1 --weight-decay 0.002 --label-smoothing 0.1 --crop 2"
warm="--epochs 2 --learning-rate 0.03 --crop 0
  --start-from $FOLDER/00_onecycle/resnet18_w8_clean_s0.safetensors"

# train NUMBER RECIPE ARCH WIDTH FIRST_SEED SEEDS TARGETS ATTACKS
train() {
  case "$ONLY" in "  " | *" $1 "*) ;; *) return 0 ;; esac
  eval "recipe=\$$2"
  # shellcheck disable=SC2086 # options are words
  ban-jax train --out "$FOLDER/$1_$2" --arch "$3" --width "$4" --first-seed "$5" \
    --seeds "$6" --targets "$7" --attacks "$8" $COMMON $short $recipe
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

# The same recipes with about twice the epochs, one model at a time.
short="--adap-blend.rate 0.05 --chunk 1"
onecycle="--epochs 6 --learning-rate 0.1 --crop 2"
step="--epochs 8 --learning-rate 0.05 --schedule step --crop 4"
adamw="--epochs 6 --learning-rate 0.003 --optimizer adamw --weight-decay 0.01 --crop 0 --no-flip"
smooth="--epochs 6 --learning-rate 0.1 --weight-decay 0.002 --label-smoothing 0.1 --crop 2"
warm="--epochs 4 --learning-rate 0.03 --crop 0
  --start-from $(dirname "$0")/resnet18_w8_clean_s0_onecycle.safetensors"

train 40 onecycle resnet18 8 100 4 0 clean
train 41 onecycle resnet18 8 100 2 3,6 badnets
train 42 adamw resnet18 8 200 3 0 clean
train 43 smooth resnet18 8 300 3 0 clean
train 44 adamw resnet18 8 200 1 4,7,1 badnets,blend,bpp
train 45 smooth resnet18 8 300 1 6,9,2 badnets,blend,bpp
train 46 onecycle vgg16 8 600 3 0 clean
train 47 onecycle vgg16 8 600 1 5,0,8,3 badnets,blend,wanet,bpp
train 48 onecycle resnet18 8 100 2 9,1 blend
train 49 step resnet18 8 110 3 0 clean
train 50 step resnet18 8 110 1 2,7,5 badnets,blend,bpp
train 51 warm resnet18 8 400 2 0 clean
train 52 warm resnet18 8 400 1 8,4,6 badnets,blend,bpp
train 53 onecycle resnet18 8 100 2 8,2 wanet
train 54 adamw resnet18 8 200 1 0,9 wanet,iad
train 55 smooth resnet18 8 300 1 3,1 wanet,iad
train 56 onecycle densenet121 8 800 2 0 clean
train 57 onecycle densenet121 8 800 1 6,2 badnets,blend
train 58 onecycle preact_resnet18 8 500 2 0 clean
train 59 onecycle preact_resnet18 8 500 1 7,1,4 badnets,blend,wanet
train 60 onecycle resnet18 8 100 1 5,0 iad,bpp
train 61 onecycle resnet18 16 700 2 0 clean
train 62 adamw resnet18 16 720 2 0 clean
train 63 adamw resnet18 16 720 1 3,8,5 badnets,blend,wanet
train 64 onecycle resnet18 8 100 1 6,1 adap_blend,ssdt
train 65 step resnet18 8 110 1 9,3 wanet,iad
train 66 smooth resnet18 8 300 1 7 adap_blend
train 67 onecycle resnet18 16 700 1 1,6 iad,bpp
train 68 adamw vgg16 8 620 2 0 clean
train 69 adamw vgg16 8 620 1 2,4 badnets,iad
