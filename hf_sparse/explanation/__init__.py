"""Why a student answers as it does: contributions of n-grams that add up to the logit."""

from hf_sparse.explanation.explain import Explainer, Explanation, NgramContribution, explain
from hf_sparse.explanation.show import format_explanations

__all__ = ["Explainer", "Explanation", "NgramContribution", "explain", "format_explanations"]
