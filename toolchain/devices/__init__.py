"""The proof on the device: bundles that run anywhere, ways to get them there, and the judge of what comes back.

Nothing here needs torch, and `run_bundle.py` needs nothing of the toolchain: it travels in the bundle.
"""
