//! Figures of repeated runs.

/// What one system reached in each round, in the order of the rounds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one, or the mean of the two in the middle; `None` without any.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            length if length.is_multiple_of(2) => {
                Some(f64::midpoint(sorted[middle - 1], sorted[middle]))
            }
            _ => Some(sorted[middle]),
        }
    }

    /// The least and the most; `None` without any.
    pub(crate) fn range(&self) -> Option<[f64; 2]> {
        let least = self.0.iter().copied().min_by(f64::total_cmp)?;
        let most = self.0.iter().copied().max_by(f64::total_cmp)?;
        Some([least, most])
    }

    /// The least over the most: 1 when all are the same, `None` when nothing is more than 0.
    pub(crate) fn flatness(&self) -> Option<f64> {
        let [least, most] = self.range()?;
        (most > 0.0).then(|| least / most)
    }

    /// This over `other`, round by round: what the machine did to both in a round cancels out.
    /// Rounds in which `other` is 0 are left out.
    pub(crate) fn over(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.filter(|(_, other)| **other != 0.0).map(|(own, other)| own / other).collect())
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    fn series(values: &[f64]) -> Series {
        values.iter().copied().collect()
    }

    #[test]
    fn the_median_ignores_order_and_outliers() {
        assert_eq!(series(&[]).median(), None);
        assert_eq!(series(&[3.0, 1000.0, 2.0]).median(), Some(3.0));
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
    }

    #[test]
    fn the_range_is_the_least_and_the_most() {
        assert_eq!(series(&[]).range(), None);
        assert_eq!(series(&[3.0, 1.0, 2.0]).range(), Some([1.0, 3.0]));
    }

    #[test]
    fn flatness_is_the_least_over_the_most() {
        assert_eq!(series(&[8.0, 10.0, 9.0]).flatness(), Some(0.8));
        assert_eq!(series(&[0.0, 10.0]).flatness(), Some(0.0));
        assert_eq!(series(&[0.0]).flatness(), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was half as fast in the second round.
        let ratio = series(&[8.0, 4.0, 9.0]).over(&series(&[4.0, 2.0, 3.0]));
        assert_eq!(ratio, series(&[2.0, 2.0, 3.0]));
        assert_eq!(series(&[1.0, 1.0]).over(&series(&[0.0, 2.0])), series(&[0.5]));
    }
}
