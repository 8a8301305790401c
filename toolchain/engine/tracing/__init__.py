"""torch.export to the neutral graph: the ATen table, the builder, the tracer."""
