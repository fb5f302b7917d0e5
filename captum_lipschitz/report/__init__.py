"""The audit: which claims about a model and its explanations the evidence supports, as one HTML file."""
