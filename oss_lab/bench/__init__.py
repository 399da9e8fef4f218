"""How fast the model is on a CPU, beside transformers: `python -m oss_lab.bench`."""
