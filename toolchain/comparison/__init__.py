"""Two artifacts side by side: ops, shapes, sizes, scales, and what both compute of the same samples.

An artifact is an .onnx or .tflite file, whoever wrote it, or a saved stage. Files run in a process of their own
(`child.py`): a runtime that dies of a damaged or foreign file takes nothing else with it.
"""
