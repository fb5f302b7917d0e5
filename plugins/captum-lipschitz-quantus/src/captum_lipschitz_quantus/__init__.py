"""Captum_lipschitz in Quantus: every installed attribution as an explanation function of its metrics."""

from captum_lipschitz_quantus.explainer import Explainer as Explainer
from captum_lipschitz_quantus.inputs import AttributionExplainer as AttributionExplainer
from captum_lipschitz_quantus.inputs import explain_func as explain_func
from captum_lipschitz_quantus.layers import LayerExplainer as LayerExplainer
from captum_lipschitz_quantus.layers import layer_explain_func as layer_explain_func

__all__ = ["AttributionExplainer", "Explainer", "LayerExplainer", "explain_func", "layer_explain_func"]
