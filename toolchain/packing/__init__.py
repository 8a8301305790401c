"""The artifact for download: a .tflite or .onnx file whose weights are palettes and positions, entropy-coded, and that
comes back to the byte (Deep Compression, Han et al., arXiv 1510.00149, section 4).

`packer` reads the format; `loader` needs numpy and zstandard alone, and neither torch nor a runtime.
"""
