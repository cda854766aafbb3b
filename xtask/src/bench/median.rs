//! The value in the middle, which one bad measurement does not move.

/// Of an even number, the mean of the middle two; 0 of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_of_the_values() {
        for (values, middle) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![4.0, 1.0, 2.0], 2.0), (vec![1.0, 4.0, 2.0, 8.0], 3.0)]
        {
            assert!((median(values.into_iter()) - middle).abs() < 1e-9);
        }
    }
}
