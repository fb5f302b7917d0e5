"""Robust training on ImageNet-sized folders: what train.py, finetune.py, evaluate.py and explain.py are made of."""
