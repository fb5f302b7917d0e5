"""The ten explanation methods of an audit, and the kinds of outputs that models have."""
