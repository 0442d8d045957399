//! Measurements of one thing: the middle, and how far they lie apart.

/// At least one measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Samples {
    /// In ascending order.
    sorted: Vec<f64>,
}

impl Samples {
    /// Of these; none if there are none.
    pub(super) fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self { sorted: values })
    }

    /// A single measurement.
    pub(super) fn one(value: f64) -> Self {
        Self { sorted: vec![value] }
    }

    /// All of them, in ascending order.
    pub(super) fn values(&self) -> &[f64] {
        &self.sorted
    }

    /// What a function that keeps the order makes of each of them.
    pub(super) fn map(&self, figure: impl Fn(f64) -> f64) -> Self {
        Self { sorted: self.sorted.iter().map(|value| figure(*value)).collect() }
    }

    /// These and those.
    pub(super) fn with(&self, others: &Self) -> Self {
        let mut sorted = [self.values(), others.values()].concat();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    /// The one in the middle; of an even number, the mean of both.
    pub(super) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        let at = |place: usize| self.sorted.get(place).copied().unwrap_or(f64::NAN);
        match self.sorted.len() % 2 {
            0 => f64::midpoint(at(middle.saturating_sub(1)), at(middle)),
            _ => at(middle),
        }
    }

    /// The smallest.
    pub(super) fn min(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    pub(super) fn max(&self) -> f64 {
        self.sorted.last().copied().unwrap_or(f64::NAN)
    }

    /// Whether the two cannot be told apart: some of one lie among those of the other.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        self.min() <= other.max() && other.min() <= self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Samples {
        Samples::new(values.to_vec()).expect("some")
    }

    #[test]
    fn the_middle_is_no_mean() {
        assert_eq!(of(&[9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 100.0]).median(), 3.0);
        assert_eq!(of(&[3.0, 1.0]).min(), 1.0);
        assert_eq!(of(&[3.0, 1.0]).max(), 3.0);
        assert_eq!(Samples::new(Vec::new()), None);
    }

    #[test]
    fn samples_are_changed_and_joined() {
        let both = of(&[3.0, 1.0]).with(&of(&[2.0]));
        assert_eq!(both.values(), [1.0, 2.0, 3.0]);
        assert_eq!(both.map(|value| value - 1.0).values(), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn what_lies_apart_is_no_noise() {
        assert!(of(&[1.0, 3.0]).overlap(&of(&[2.0, 4.0])));
        assert!(of(&[1.0, 9.0]).overlap(&of(&[2.0, 4.0])));
        assert!(!of(&[1.0, 2.0]).overlap(&of(&[3.0, 4.0])));
        assert!(!of(&[3.0, 4.0]).overlap(&of(&[1.0, 2.0])));
    }
}
