"""From a trained PyTorch model to ONNX and TFLite files tuned to a device, checked against the float model.

    from toolchain import deploy
    deploy(my_module, target="arm64", calibration=my_data_loader)

or stage by stage: `Quantize()(Calibrate(samples=samples)(Trace(example_inputs=(x,))(my_module)))`. Every public
name stands in `__init__.pyi` and is loaded when it is first used: importing the package costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
