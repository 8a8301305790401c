"""Every architecture of the zoo by name: random weights, small, written as their users write them.

    module, inputs = build_architecture("swin", count=24)
    outputs = module(*(torch.from_numpy(array) for array in inputs))

Inputs may be several, and token ids (int64) or masks (bool); outputs a tensor, tuple, list or dict. Axis 0 of all of
them is the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tests.zoo.actor import actor
from tests.zoo.anomaly_autoencoder import anomaly_autoencoder
from tests.zoo.autoencoder import autoencoder
from tests.zoo.bert import bert
from tests.zoo.blazeface import blazeface
from tests.zoo.conformer import conformer
from tests.zoo.conv_gru import conv_gru
from tests.zoo.conv_tasnet import conv_tasnet
from tests.zoo.convmixer import convmixer
from tests.zoo.convnext import convnext
from tests.zoo.crnn import crnn
from tests.zoo.dcgan import dcgan
from tests.zoo.decoder import decoder
from tests.zoo.deeplab_v3 import deeplab_v3
from tests.zoo.deit import deit
from tests.zoo.densenet import densenet
from tests.zoo.depth import depth
from tests.zoo.dlrm import dlrm
from tests.zoo.ds_cnn import ds_cnn
from tests.zoo.dueling_dqn import dueling_dqn
from tests.zoo.edsr import edsr
from tests.zoo.efficientformer import efficientformer
from tests.zoo.efficientnet import efficientnet_b0
from tests.zoo.espcn import espcn
from tests.zoo.fast_scnn import fast_scnn
from tests.zoo.fpn_detector import fpn_detector
from tests.zoo.fsrcnn import fsrcnn
from tests.zoo.gcn import gcn
from tests.zoo.ghostnet import ghostnet
from tests.zoo.gpt import gpt
from tests.zoo.gru_d import gru_d
from tests.zoo.inception import inception
from tests.zoo.llama import llama
from tests.zoo.lstm import lstm
from tests.zoo.mlp_mixer import mlp_mixer
from tests.zoo.mnasnet import mnasnet
from tests.zoo.mobile_facenet import mobile_facenet
from tests.zoo.mobilenet_v1 import mobilenet_v1
from tests.zoo.mobilenet_v3 import mobilenet_v3_small
from tests.zoo.mobilevit import mobilevit
from tests.zoo.n_beats import n_beats
from tests.zoo.nerf import nerf
from tests.zoo.networks import NETWORKS
from tests.zoo.pointnet import pointnet
from tests.zoo.pose import pose_argmax, pose_soft_argmax
from tests.zoo.regnet import regnet
from tests.zoo.repvgg import repvgg
from tests.zoo.resnet50 import resnet50
from tests.zoo.resnext import resnext
from tests.zoo.rnn import rnn
from tests.zoo.se_resnet import se_resnet
from tests.zoo.shufflenet_v2 import shufflenet_v2
from tests.zoo.squeezenet import squeezenet
from tests.zoo.ssd import ssd
from tests.zoo.style_transfer import style_transfer
from tests.zoo.swin import swin
from tests.zoo.tabnet import tabnet
from tests.zoo.tc_resnet import tc_resnet
from tests.zoo.tcn import tcn
from tests.zoo.text_cnn import text_cnn
from tests.zoo.unet import unet
from tests.zoo.vad import vad
from tests.zoo.vae_encoder import vae_encoder
from tests.zoo.vgg import vgg11
from tests.zoo.vit import vit
from tests.zoo.wav2vec import wav2vec
from tests.zoo.wavenet import wavenet
from tests.zoo.x_vector import x_vector
from tests.zoo.xception import xception
from tests.zoo.yolo import yolo
from tests.zoo.zero_dce import zero_dce

Architecture = tuple[nn.Module, tuple[np.ndarray, ...]]


def build_architecture(name: str, count: int = 24) -> Architecture:
    """The module in eval mode and `count` samples of each of its inputs; the same on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ARCHITECTURES[name](count)


def _mobilenet_v2(count: int) -> Architecture:
    module, images = NETWORKS["mobilenet_v2"](count)
    return module, (images,)


def _resnet18(count: int) -> Architecture:
    module, images = NETWORKS["resnet18"](count)
    return module, (images,)


ARCHITECTURES: dict[str, Callable[[int], Architecture]] = {
    "mobilenet_v2": _mobilenet_v2,
    "resnet18": _resnet18,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v3_small": mobilenet_v3_small,
    "efficientnet_b0": efficientnet_b0,
    "resnet50": resnet50,
    "resnext": resnext,
    "se_resnet": se_resnet,
    "densenet": densenet,
    "squeezenet": squeezenet,
    "shufflenet_v2": shufflenet_v2,
    "ghostnet": ghostnet,
    "regnet": regnet,
    "mnasnet": mnasnet,
    "convnext": convnext,
    "vgg11": vgg11,
    "inception": inception,
    "repvgg": repvgg,
    "convmixer": convmixer,
    "xception": xception,
    "mobile_facenet": mobile_facenet,
    "vit": vit,
    "deit": deit,
    "swin": swin,
    "mobilevit": mobilevit,
    "mlp_mixer": mlp_mixer,
    "efficientformer": efficientformer,
    "unet": unet,
    "deeplab_v3": deeplab_v3,
    "fast_scnn": fast_scnn,
    "depth": depth,
    "espcn": espcn,
    "edsr": edsr,
    "fsrcnn": fsrcnn,
    "style_transfer": style_transfer,
    "zero_dce": zero_dce,
    "dcgan": dcgan,
    "fpn_detector": fpn_detector,
    "ssd": ssd,
    "yolo": yolo,
    "blazeface": blazeface,
    "pose_argmax": pose_argmax,
    "pose_soft_argmax": pose_soft_argmax,
    "autoencoder": autoencoder,
    "anomaly_autoencoder": anomaly_autoencoder,
    "vae_encoder": vae_encoder,
    "ds_cnn": ds_cnn,
    "tc_resnet": tc_resnet,
    "tcn": tcn,
    "conv_gru": conv_gru,
    "lstm": lstm,
    "rnn": rnn,
    "gru_d": gru_d,
    "crnn": crnn,
    "wav2vec": wav2vec,
    "conformer": conformer,
    "vad": vad,
    "conv_tasnet": conv_tasnet,
    "wavenet": wavenet,
    "x_vector": x_vector,
    "bert": bert,
    "decoder": decoder,
    "gpt": gpt,
    "llama": llama,
    "text_cnn": text_cnn,
    "pointnet": pointnet,
    "n_beats": n_beats,
    "tabnet": tabnet,
    "nerf": nerf,
    "dlrm": dlrm,
    "gcn": gcn,
    "dueling_dqn": dueling_dqn,
    "actor": actor,
}
