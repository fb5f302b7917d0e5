"""What the scripts of examples/cifar10 share: images, recipes, the training loop, measurements and their comparison."""
