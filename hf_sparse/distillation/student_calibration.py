"""How the `evaluate` stage calibrates the chosen student, and what `save` writes into its config."""

from typing import Any

from transformers import PreTrainedConfig

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.texts import calibration_set, has_labels
from hf_sparse.evaluation.calibration import NUM_BINS, calibrate, measure_calibration

_FITTED_ON = "the validation texts, by which checkpoint and stage were chosen too"


def calibrate_run(plan: RunPlan, stage: str) -> dict[str, Any] | None:
    """Fit the temperature (and thresholds) of a stage's student on the texts of data.calibration, or of validation.

    Returns:
        What the report holds under `calibration`: `temperature`, `label_thresholds` (null for single-label tasks),
        `fitted_on`, `bins`, and for `validation`, `calibration` and `test`, where they have labels, what
        `measure_calibration` finds. None for a regression, and where the texts to fit on have no labels.
    """
    problem_type, texts = plan.space.problem_type, plan.stage_folder("texts")
    fits_on = calibration_set(texts)
    if problem_type == "regression" or not has_labels(texts, fits_on):
        return None
    found = {}
    for text_set in ("validation", "calibration", "test"):
        if has_labels(texts, text_set):
            _, labels = student_stages.read_labelled(texts, text_set, plan.space)
            found[text_set] = student_stages.student_logits(plan, stage, text_set), labels.numpy()
    calibration = calibrate(*found[fits_on], problem_type=problem_type)
    fitted = {"temperature": calibration.temperature, "label_thresholds": calibration.thresholds}
    measured = {name: measure_calibration(logits, labels, calibration) for name, (logits, labels) in found.items()}
    fitted_on = _FITTED_ON if fits_on == "validation" else "the texts of data.calibration"
    return fitted | {"fitted_on": fitted_on, "bins": NUM_BINS} | measured


def set_calibration(config: PreTrainedConfig, report: dict[str, Any]) -> None:
    """Put the calibration of a report, if it has one, into a student's config."""
    calibration = report.get("calibration")
    if calibration is not None:
        config.calibration_temperature = calibration["temperature"]
        config.label_thresholds = calibration["label_thresholds"]
