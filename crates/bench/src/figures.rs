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

/// So many percent of the values are not above this one; 0 of none.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
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

    #[test]
    fn a_percentile_is_a_value_that_so_many_do_not_exceed() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(hundred.clone(), 99), percentile(hundred, 100)), (99.0, 100.0));
        assert_eq!((percentile(vec![7.0], 99), percentile(Vec::new(), 99)), (7.0, 0.0));
    }
}
