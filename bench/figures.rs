//! What was measured, as a table for people and as JSON for programs.

use serde::Serialize;
use std::fmt::Write as _;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) case: String,
    pub(crate) figure: String,
    pub(crate) unit: String,
    /// What it is held against: another program in the same run, or the aim.
    pub(crate) reference: String,
    /// The median as a part of the reference; of pairs, the median of their ratios.
    pub(crate) ratio: f64,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) repeats: usize,
}

impl Figure {
    /// Of several measurements, against a reference in the same unit.
    pub(crate) fn new(
        [case, figure, unit]: [&str; 3],
        reference: (&str, f64),
        measured: Vec<f64>,
    ) -> Self {
        let measured = sorted(measured);
        let at = |index: usize| measured.get(index).copied().unwrap_or(f64::NAN);
        let median = median(measured.clone());
        Self {
            case: case.to_owned(),
            figure: figure.to_owned(),
            unit: unit.to_owned(),
            reference: format!("{} {} {unit}", reference.0, number(reference.1)),
            ratio: median / reference.1,
            median,
            min: at(0),
            max: at(measured.len().saturating_sub(1)),
            repeats: measured.len(),
        }
    }

    /// Each measurement beside one of the reference, taken right before or after it. The ratio is
    /// the median of theirs: a machine whose speed varies slows both of a pair.
    pub(crate) fn paired(name: [&str; 3], reference: &str, pairs: &[(f64, f64)]) -> Self {
        let (measured, references): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let ratios = pairs.iter().map(|(measured, reference)| measured / reference).collect();
        Self { ratio: median(ratios), ..Self::new(name, (reference, median(references)), measured) }
    }
}

pub(crate) fn median(values: Vec<f64>) -> f64 {
    let values = sorted(values);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// A Markdown table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut out = String::from(
        "| case | figure | median | range | reference | ratio |\n|---|---|---|---|---|---|",
    );
    for f in figures {
        write!(
            out,
            "\n| {} | {} | {} {} | {} – {} | {} | {:.2} |",
            f.case,
            f.figure,
            number(f.median),
            f.unit,
            number(f.min),
            number(f.max),
            f.reference,
            f.ratio
        )
        .ok();
    }
    out
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
