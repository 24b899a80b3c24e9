"""The inner loops: each module has an idea once in PyTorch, and faster where that can be had."""
