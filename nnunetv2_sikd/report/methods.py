"""How the numbers were made, in sentences that HTML and Markdown share."""

from __future__ import annotations

from nnunetv2_sikd.report.intervals import RESAMPLES
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.significance import MINIMUM_PATIENTS


def methods(results: Results) -> list[tuple[str, str]]:
    """Term and explanation of everything that a reader needs to judge the tables."""
    specification = results.specification
    slices = [test.title or test.key for test in results.tests if test.slices]
    per_slice = f" Slice by slice on {', '.join(slices)}." if slices else ""
    return [
        (
            "Unit",
            "The patient: its volumes are averaged first, so several volumes of one patient are one observation.",
        ),
        (
            "Pairs",
            "Arm and baseline of the same seed and fold on the same volumes; differences are arm minus baseline.",
        ),
        (
            "Intervals",
            f"95 %, {RESAMPLES} resamples, fixed seed. One training: BCa bootstrap over patients (scipy). Several "
            "trainings (seeds, folds): trainings and patients are resampled independently (pigeonhole bootstrap, Owen "
            "2007, in numpy since no library has it); the standard deviation of these means times the t quantile of "
            "Satterthwaite's degrees of freedom. Of several folds with several seeds, a fold's mean over its seeds is "
            "one training, in these and in the differences; tables of means and plots count every training. "
            "With few trainings that differ, these intervals are wide.",
        ),
        (
            "Tests",
            "Wilcoxon's signed-rank test (scipy), two-sided, on each patient's Dice difference averaged over "
            "trainings; patients without a difference keep their ranks (Pratt); no test if fewer than "
            f"{MINIMUM_PATIENTS} patients differ. Holm's correction (statsmodels) across labels "
            "and test sets of an arm.",
        ),
        (
            "Non-inferiority",
            "On the source's own test set: the lower end of the 95 % interval of the Dice difference lies above "
            f"−{specification.non_inferiority_margin:g}. Otherwise it is not shown, which does not mean inferior; and "
            "non-inferior does not mean equal.",
        ),
        (
            "Distances",
            "Between surfaces weighted by area (contours by length in 2D). The Hausdorff distance is the larger of "
            f"both directed 95th percentiles; surface Dice counts what lies within {specification.surface_tolerance:g} "
            f"{'/'.join(dict.fromkeys(results.unit(test.key) for test in results.tests))}.{per_slice}",
        ),
        (
            "Empty masks",
            "A structure that is missed altogether counts: Dice 0, distances the diagonal of the image (or slice). A "
            "volume whose reference lacks a label has no Dice for it: it is left out for all arms alike, whatever they "
            "predict there, and what they predict there is counted under Failures.",
        ),
        ("Mean over labels", "Each patient's mean over the labels that the patient's references have."),
    ]
