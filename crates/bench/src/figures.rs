//! Figures on the terminal, and what makes one of many measurements.

/// Prints one figure.
pub(crate) fn print(name: &str, value: f64, unit: &str) {
    let digits = match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        _ => 3,
    };
    println!("{name}\t{value:.digits$}\t{unit}");
}

/// The middle one; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), values.len() % 2) {
        (Some(upper), 0) => (upper + values.get(half.wrapping_sub(1)).unwrap_or(upper)) / 2.0,
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}

/// A quarter of the values are not above this one; 0 of none.
pub(crate) fn lower_quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 4).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn a_quarter_is_not_above_the_lower_quartile() {
        assert_eq!(lower_quartile(vec![5.0, 1.0, 4.0, 2.0, 3.0]), 2.0);
        assert_eq!((lower_quartile(vec![7.0]), lower_quartile(Vec::new())), (7.0, 0.0));
    }
}
