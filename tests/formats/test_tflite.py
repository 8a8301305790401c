"""Every op, float and int8, as LiteRT executes it (XNNPACK and reference kernels) against float64 arithmetic."""

from functools import cache

import numpy as np
import pytest
import torch

from toolchain.engine.run import as_tensors, run
from toolchain.engine.simulate import Simulator
from toolchain.formats.artifact import InOut
from toolchain.formats.tflite import TFLITE_LOWERINGS, TfliteRunner, read_tflite, write_tflite
from toolchain.graph import Graph, Op, parse_graph
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, dequantize, quantize

IMAGE = "input x: float32[1,4,9,9]\n"
WEIGHT = "constant w: float32[8,4,3,3]\nconstant b: float32[8]\n"
DEPTHWISE = "constant w: float32[4,1,3,3]\nconstant b: float32[4]\n"
PAIR = IMAGE + "input z: float32[1,4,9,9]\n"

CASES = {
    "conv2d valid": IMAGE + WEIGHT + "y = conv2d(x, w, b)\noutput y",
    "conv2d same": IMAGE + WEIGHT + "y = conv2d(x, w, b) padding=(1,1,1,1) activation=relu\noutput y",
    "conv2d stride same": IMAGE + WEIGHT + "y = conv2d(x, w, b) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "conv2d stride explicit": "input x: float32[1,4,8,8]\n"
    + WEIGHT
    + "y = conv2d(x, w, b) stride=(2,2) padding=(1,1,1,1) activation=relu6\noutput y",
    "conv2d asymmetric": IMAGE + WEIGHT + "y = conv2d(x, w, b) padding=(2,0,1,3)\noutput y",
    "conv2d uneven stride": IMAGE + WEIGHT + "y = conv2d(x, w, b) stride=(2,1) padding=(1,1,1,1)\noutput y",
    "conv2d dilation": IMAGE + WEIGHT + "y = conv2d(x, w, b) dilation=(2,3) padding=(2,3,2,3)\noutput y",
    "conv2d no bias": IMAGE + "constant w: float32[8,4,3,3]\ny = conv2d(x, w) activation=relu6\noutput y",
    "conv2d even kernel": IMAGE
    + "constant w: float32[8,4,2,4]\ny = conv2d(x, w) padding=(0,1,1,2)\noutput y",
    "conv2d pointwise": IMAGE
    + "constant w: float32[8,4,1,1]\nconstant b: float32[8]\ny = conv2d(x, w, b) activation=relu\noutput y",
    "conv2d pointwise stride": IMAGE
    + "constant w: float32[8,4,1,1]\ny = conv2d(x, w) stride=(2,2)\noutput y",
    "conv2d groups": IMAGE
    + "constant w: float32[8,2,3,3]\nconstant b: float32[8]\n"
    + "y = conv2d(x, w, b) groups=2 padding=(1,1,1,1) activation=relu\noutput y",
    "conv2d groups stride dilation": "input x: float32[1,6,11,10]\n"
    + "constant w: float32[9,2,3,2]\nconstant b: float32[9]\n"
    + "y = conv2d(x, w, b) groups=3 padding=(1,0,2,1) stride=(2,1) dilation=(1,2)\noutput y",
    "conv2d batch": "input x: float32[3,4,9,9]\n"
    + WEIGHT
    + "y = conv2d(x, w, b) padding=(1,1,1,1)\noutput y",
    "conv2d one channel": "input x: float32[1,1,9,9]\nconstant w: float32[8,1,3,3]\nconstant b: float32[8]\n"
    + "y = conv2d(x, w, b) padding=(1,1,1,1) activation=relu\noutput y",
    "depthwise valid": IMAGE + DEPTHWISE + "y = depthwise_conv2d(x, w, b)\noutput y",
    "depthwise same": IMAGE
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) padding=(1,1,1,1) activation=relu6\noutput y",
    "depthwise stride explicit": "input x: float32[1,4,8,8]\n"
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) stride=(2,2) padding=(1,1,1,1) activation=relu\noutput y",
    "depthwise stride same": "input x: float32[1,4,8,8]\n"
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) stride=(2,2) padding=(0,0,1,1)\noutput y",
    "depthwise uneven stride": IMAGE
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) stride=(1,2) padding=(1,0,1,0)\noutput y",
    "depthwise dilation": IMAGE
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) dilation=(2,2) padding=(2,2,2,2)\noutput y",
    "depthwise multiplier": IMAGE
    + "constant w: float32[12,1,3,3]\nconstant b: float32[12]\n"
    + "y = depthwise_conv2d(x, w, b) padding=(1,1,1,1)\noutput y",
    "depthwise pointwise, no bias": IMAGE
    + "constant w: float32[4,1,1,1]\ny = depthwise_conv2d(x, w)\noutput y",
    "depthwise 5x5": IMAGE
    + "constant w: float32[4,1,5,5]\nconstant b: float32[4]\n"
    + "y = depthwise_conv2d(x, w, b) padding=(2,2,2,2) stride=(2,2)\noutput y",
    "linear": "input x: float32[3,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear no bias, relu": "input x: float32[3,20]\nconstant w: float32[7,20]\n"
    + "y = linear(x, w) activation=relu\noutput y",
    "linear rank 3": "input x: float32[2,5,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b) activation=relu6\noutput y",
    "linear rank 1": "input x: float32[20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear rank 4": "input x: float32[1,5,6,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear over channels last": IMAGE
    + "constant w: float32[7,4]\nconstant b: float32[7]\n"
    + "p = permute(x) axes=(0,2,3,1)\ny = linear(p, w, b)\noutput y",
    "flatten, linear": IMAGE
    + "constant w: float32[7,324]\nconstant b: float32[7]\n"
    + "f = reshape(x) shape=(1,324)\ny = linear(f, w, b)\noutput y",
    "flatten, relu, add, linear": PAIR
    + "constant w: float32[7,324]\nconstant c: float32[324]\nf = reshape(x) shape=(1,324)\n"
    + "g = reshape(z) shape=(1,324)\nr = relu(f)\ns = add(r, g)\nt = mul(s, c)\ny = linear(t, w)\noutput y",
    "flatten, two linears": IMAGE
    + "constant w: float32[7,324]\nconstant v: float32[5,324]\n"
    + "f = reshape(x) shape=(1,324)\ny = linear(f, w)\nu = linear(f, v)\noutput y, u",
    "flatten and add to a vector": IMAGE
    + "input z: float32[1,324]\nconstant w: float32[7,324]\n"
    + "f = reshape(x) shape=(1,324)\ns = add(f, z)\ny = linear(s, w)\noutput y",
    "flatten to an output": IMAGE + "y = reshape(x) shape=(1,324)\noutput y",
    "relu": IMAGE + "y = relu(x)\noutput y",
    "relu6": IMAGE + "y = relu6(x)\noutput y",
    "leaky_relu": IMAGE + "y = leaky_relu(x) slope=0.2\noutput y",
    "sigmoid": IMAGE + "y = sigmoid(x)\noutput y",
    "tanh": IMAGE + "y = tanh(x)\noutput y",
    "hardswish": IMAGE + "y = hardswish(x)\noutput y",
    "softmax last": "input x: float32[3,10]\ny = softmax(x) axis=1\noutput y",
    "softmax channels": IMAGE + "y = softmax(x) axis=1\noutput y",
    "softmax width": IMAGE + "y = softmax(x) axis=3\noutput y",
    "softmax long": "input x: float32[2,1000]\ny = softmax(x) axis=1\noutput y",
    "softmax rank 3": "input x: float32[2,5,7]\ny = softmax(x) axis=1\noutput y",
    "add": PAIR + "y = add(x, z)\noutput y",
    "add relu": PAIR + "y = add(x, z) activation=relu\noutput y",
    "add to itself": IMAGE + "y = add(x, x)\noutput y",
    "add channels": IMAGE + "constant c: float32[4,1,1]\ny = add(x, c) activation=relu6\noutput y",
    "add lower rank": IMAGE + "input z: float32[4,1,9]\ny = add(x, z)\noutput y",
    "add both broadcast": "input x: float32[1,4,9,1]\ninput z: float32[1,1,9,9]\ny = add(x, z)\noutput y",
    "add row": IMAGE + "constant c: float32[9]\ny = add(x, c)\noutput y",
    "sub": PAIR + "y = sub(x, z)\noutput y",
    "sub constant": IMAGE + "constant c: float32[1,4,1,1]\ny = sub(x, c) activation=relu\noutput y",
    "sub from constant": IMAGE + "constant c: float32[]\ny = sub(c, x)\noutput y",
    "mul": PAIR + "y = mul(x, z)\noutput y",
    "mul scalar": IMAGE + "constant c: float32[]\ny = mul(x, c)\noutput y",
    "mul gate": IMAGE + "input z: float32[1,4,1,1]\ny = mul(x, z) activation=relu6\noutput y",
    "mul gate by a vector": IMAGE
    + "input z: float32[1,4]\ng = reshape(z) shape=(1,4,1,1)\ny = mul(x, g)\noutput y",
    "max_pool2d": IMAGE + "y = max_pool2d(x) kernel_size=(2,2) stride=(2,2)\noutput y",
    "max_pool2d same": IMAGE + "y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "max_pool2d explicit": "input x: float32[1,4,8,8]\n"
    + "y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "max_pool2d of relu": "input x: float32[1,4,8,8]\nr = relu(x)\n"
    + "y = max_pool2d(r) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "avg_pool2d": IMAGE + "y = avg_pool2d(x) kernel_size=(3,3) stride=(3,3)\noutput y",
    "avg_pool2d uneven": IMAGE + "y = avg_pool2d(x) kernel_size=(2,3) stride=(2,1)\noutput y",
    "avg_pool2d same": IMAGE + "y = avg_pool2d(x) kernel_size=(3,3) stride=(1,1) padding=(1,1,1,1)\noutput y",
    "avg_pool2d explicit": "input x: float32[1,4,8,8]\n"
    + "y = avg_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "avg_pool2d wide padding": IMAGE
    + "y = avg_pool2d(x) kernel_size=(2,4) stride=(2,1) padding=(1,2,1,2)\noutput y",
    "avg_pool2d global": IMAGE + "y = avg_pool2d(x) kernel_size=(9,9)\noutput y",
    "mean image": IMAGE + "y = mean(x) axes=(2,3)\noutput y",
    "mean image keepdim": IMAGE + "y = mean(x) axes=(2,3) keepdim=True\noutput y",
    "mean channels": IMAGE + "y = mean(x) axes=(1,)\noutput y",
    "mean width": IMAGE + "y = mean(x) axes=(3,)\noutput y",
    "mean sequence": "input x: float32[2,7,12]\ny = mean(x) axes=(1,) keepdim=True\noutput y",
    "mean last": "input x: float32[2,7,12]\ny = mean(x) axes=(2,)\noutput y",
    "mean of everything": IMAGE + "y = mean(x) axes=(0,1,2,3)\noutput y",
    "reshape merges height and width": IMAGE + "y = reshape(x) shape=(1,4,81)\noutput y",
    "reshape splits channels": IMAGE + "y = reshape(x) shape=(1,2,2,9,9)\noutput y",
    "reshape mixes axes": "input x: float32[1,4,6,9]\ny = reshape(x) shape=(1,8,27)\noutput y",
    "reshape of a vector": "input x: float32[2,12]\ny = reshape(x) shape=(2,3,4)\noutput y",
    "patches": IMAGE
    + "constant w: float32[5,4]\nf = reshape(x) shape=(1,4,81)\n"
    + "p = permute(f) axes=(0,2,1)\ny = linear(p, w)\noutput y",
    "channel shuffle": IMAGE
    + "constant w: float32[8,4,1,1]\na = reshape(x) shape=(1,2,2,9,9)\np = permute(a) axes=(0,2,1,3,4)\n"
    + "s = reshape(p) shape=(1,4,9,9)\ny = conv2d(s, w)\noutput y",
    "permute to channels last": IMAGE + "y = permute(x) axes=(0,2,3,1)\noutput y",
    "permute inside": IMAGE + "r = relu(x)\np = permute(r) axes=(0,3,1,2)\ny = relu6(p)\noutput y",
    "permute of a result to an output": IMAGE + "r = relu(x)\ny = permute(r) axes=(0,2,3,1)\noutput y",
    "permute, both outputs": IMAGE + "r = relu(x)\ny = permute(r) axes=(0,2,3,1)\noutput y, r",
    "permute of a matrix": "input x: float32[5,7]\nr = relu(x)\ny = permute(r) axes=(1,0)\noutput y",
    "add of different layouts": IMAGE
    + "input z: float32[1,9,9,4]\nq = relu(z)\np = permute(q) axes=(0,3,1,2)\ny = add(x, p)\noutput y",
    "concat channels": IMAGE + "input z: float32[1,3,9,9]\ny = concat(x, z) axis=1\noutput y",
    "concat height": PAIR + "y = concat(x, z, x) axis=2\noutput y",
    "concat vectors": "input x: float32[2,5]\ninput z: float32[2,3]\ny = concat(x, z) axis=1\noutput y",
    "pad": IMAGE + "y = pad(x) amounts=(0,0,1,2,0,0,2,1)\noutput y",
    "pad channels": IMAGE + "y = pad(x) amounts=(0,1,0,0,0,2,0,0)\noutput y",
    "pad value": IMAGE + "y = pad(x) amounts=(0,1,0,2,0,0,0,1) value=0.75\noutput y",
    "pad cuts": IMAGE + "y = pad(x) amounts=(0,0,-1,2,0,0,1,-3)\noutput y",
    "slice": IMAGE + "y = slice(x) axes=(1,3) starts=(1,2) stops=(3,9) steps=(1,1)\noutput y",
    "slice steps": IMAGE + "y = slice(x) axes=(1,2) starts=(1,0) stops=(4,9) steps=(2,3)\noutput y",
    "two outputs": IMAGE + "r = relu(x)\ny = max_pool2d(r) kernel_size=(2,2)\noutput r, y",
    "several ops": IMAGE
    + WEIGHT
    + "constant v: float32[8,1,3,3]\nconstant d: float32[8]\nconstant l: float32[10,8]\nconstant m: float32[10]\n"
    + "c = conv2d(x, w, b) padding=(1,1,1,1) activation=relu6\n"
    + "e = depthwise_conv2d(c, v, d) padding=(1,1,1,1) activation=relu6\ns = add(c, e)\n"
    + "g = mean(s) axes=(2,3)\ny = linear(g, l, m)\noutput y",
}
