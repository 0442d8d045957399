//! How many sockets the process has that is dumped or restored, and what is to be reached with so many; how time
//! may grow with them.

use super::{
    figures::Figures,
    holder::Set,
    row::{Row, Target},
};

/// As many at most, and what is to be reached is about so many.
pub(super) const MOST: u32 = 16_000;
/// From so many on time may grow by no more than [`GROWTH`].
pub(super) const FEWER: u32 = 2000;
/// With eight times as many sockets: in proportion, and a tenth more.
const GROWTH: Target = Target::Below(8.8);

/// What can be said on the command line.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Sizes {
    /// How many sockets
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, FEWER, 8000, MOST])]
    sockets: Vec<u32>,
}

impl Sizes {
    /// The same on a command line.
    pub(super) fn word(&self) -> String {
        let sizes: Vec<String> = self.sockets.iter().map(u32::to_string).collect();
        format!("--sockets={}", sizes.join(","))
    }

    /// All that is measured.
    pub(super) fn sets(&self) -> impl Iterator<Item = Set> {
        self.sockets.iter().flat_map(|sockets| Set::kinds(*sockets))
    }

    /// The fewest and the most, of each kind, if they are not the same.
    pub(super) fn ends(&self) -> impl Iterator<Item = [Set; 2]> {
        let least = self.sockets.iter().copied().min().unwrap_or(0);
        let most = self.sockets.iter().copied().max().unwrap_or(0);
        let both = Set::kinds(most).map(|most| [Set { sockets: least, ..most }, most]);
        both.into_iter().filter(move |_| least < most)
    }

    /// Those of which is to be said how time grows; none if that was not measured.
    pub(super) fn growing(&self) -> impl Iterator<Item = Set> {
        let is_known = [FEWER, MOST].iter().all(|sockets| self.sockets.contains(sockets));
        Set::kinds(MOST).into_iter().filter(move |_| is_known)
    }
}

/// What is to be reached with so many sockets.
pub(super) fn of_most(set: &Set, target: Target) -> Option<Target> {
    (set.sockets == MOST).then_some(target)
}

/// How many times longer `who` takes for a set than for `fewer` sockets of that kind, of which it has eight times as
/// many. `row`: without a target, of this workload, in this unit.
pub(super) fn growth(
    set: &Set,
    fewer: u32,
    who: &str,
    workload: &str,
    figures: &Figures,
    row: impl FnOnce(&str, &'static str, super::row::Measured) -> Row,
) -> Row {
    let names = [set.figure(who), Set { sockets: fewer, ..*set }.figure(who)];
    let grown = figures.of_both(names.each_ref().map(String::as_str), |all, few| all / few);
    let row = row(&format!("{workload}: time, as against {fewer}"), "times", grown);
    Row { target: Some(GROWTH), ..row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_only_of_what_was_measured() {
        let sizes = |sockets: &[u32]| Sizes { sockets: sockets.to_vec() };
        assert_eq!(sizes(&[2, FEWER, MOST]).growing().count(), 4);
        assert_eq!(sizes(&[2, MOST]).growing().count(), 0);
        assert_eq!(sizes(&[2, MOST]).word(), "--sockets=2,16000");
        assert_eq!(sizes(&[2, 7]).ends().count(), 4);
        assert_eq!(sizes(&[7]).ends().count(), 0);
    }
}
