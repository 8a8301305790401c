"""Take a quantized model as an nn.Module into your own training loop, and bring it back."""

import torch
from torch import nn

from toolchain import Calibrate, Export, Quantize, Trace, samples_from

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
data = torch.randn(512, 16)
with torch.no_grad():
    wanted = model(data)

traced = Trace(example_inputs=(data[:1],))(model)
quantized = Quantize()(Calibrate(samples=samples_from(data, calibration_count=256))(traced))

student = quantized.to_module()
optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
for _ in range(50):
    loss = (student(data) - wanted).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

files = Export()(quantized.from_module(student)).files
print({name: len(content) for name, content in files.items()}, f"loss {loss.item():.5f}")
