//! One line of the result: what ucr needed, what a peer needed, and what was to be reached.

use serde_json::{Value, json};

use super::samples::Samples;

/// What came of it, or why nothing did.
pub(super) type Measured = Result<Samples, String>;

/// One comparison.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// As in `cargo xtask bench BENCH`.
    pub(super) bench: &'static str,
    /// What was done.
    pub(super) workload: String,
    /// With how many sockets, or how many who are busy.
    pub(super) n: u64,
    /// Of all values.
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) ucr: Measured,
    pub(super) peer: Option<Peer>,
    pub(super) target: Option<Target>,
}

/// Who did the same.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// As one would type it.
    pub(super) name: String,
    pub(super) value: Measured,
}

/// What is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
    /// Less, but the peer is a floor, below which nobody gets: the ratio says how many times the floor it is.
    Floor,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// So much at most, by the median.
    Below(f64),
    /// So many times better than the peer, by the medians.
    Times(f64),
    /// So many times the floor at most, by the medians. That both lie close to each other is no flaw.
    Floors(f64),
    /// So many times what the peer needs at most, by the medians. What lies as close as that is often noise.
    Within(f64),
}

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There was nothing to be reached.
    Measured,
    Met,
    Missed,
    /// ucr could not be measured.
    Failed,
    /// The peer could not, by which the target goes.
    NoPeer,
}

impl Row {
    /// Less is better, and nobody else was measured.
    pub(super) fn alone(
        bench: &'static str,
        workload: String,
        n: u64,
        unit: &'static str,
        ucr: Measured,
    ) -> Self {
        Self { bench, workload, n, unit, better: Better::Less, ucr, peer: None, target: None }
    }

    /// How many times better than the peer ucr is, or how many times the floor, by the medians.
    pub(super) fn ratio(&self) -> Option<f64> {
        let (ucr, peer) = self.both()?;
        let (ucr, peer) = (ucr.median(), peer.median());
        let ratio = match self.better {
            Better::Less => peer / ucr,
            Better::More | Better::Floor => ucr / peer,
        };
        // Of nothing, everything is any number of times as much.
        ratio.is_finite().then_some(ratio)
    }

    /// Whether the difference means nothing.
    pub(super) fn is_noise(&self) -> bool {
        self.both().is_some_and(|(ucr, peer)| ucr.overlap(peer))
    }

    fn both(&self) -> Option<(&Samples, &Samples)> {
        Some((self.ucr.as_ref().ok()?, self.peer.as_ref()?.value.as_ref().ok()?))
    }

    /// How it ended.
    pub(super) fn verdict(&self) -> Verdict {
        let Ok(ucr) = &self.ucr else { return Verdict::Failed };
        let is_met = match self.target {
            None => return Verdict::Measured,
            Some(Target::Below(limit)) => ucr.median() < limit,
            Some(Target::Within(most)) => match self.ratio() {
                None => return Verdict::NoPeer,
                Some(ratio) => ratio * most >= 1.0,
            },
            Some(Target::Times(least)) => match self.ratio() {
                None => return Verdict::NoPeer,
                Some(ratio) => ratio >= least && !self.is_noise(),
            },
            Some(Target::Floors(most)) => match self.ratio() {
                None => return Verdict::NoPeer,
                Some(ratio) => ratio <= most,
            },
        };
        if is_met { Verdict::Met } else { Verdict::Missed }
    }

    /// What is to be reached, in words.
    pub(super) fn aim(&self) -> Option<String> {
        Some(match self.target? {
            Target::Below(limit) => format!("< {limit} {}", self.unit),
            Target::Times(least) => format!(">= {least} times"),
            Target::Floors(most) => format!("<= {most} times"),
            Target::Within(most) => format!("<= {most} times the peer's"),
        })
    }

    /// As JSON; what is not known is null.
    pub(super) fn json(&self) -> Value {
        let of = |value: Option<&Samples>, what: fn(&Samples) -> f64| value.map(what);
        let ucr = self.ucr.as_ref().ok();
        let peer = self.peer.as_ref();
        let value = peer.and_then(|peer| peer.value.as_ref().ok());
        let error = |measured: Option<&Measured>| measured.and_then(|m| m.as_ref().err().cloned());
        json!({
            "bench": self.bench,
            "workload": self.workload,
            "n": self.n,
            "unit": self.unit,
            "ucr": of(ucr, Samples::median),
            "ucr_min": of(ucr, Samples::min),
            "ucr_max": of(ucr, Samples::max),
            "peer": peer.map(|peer| &peer.name),
            "peer_value": of(value, Samples::median),
            "peer_min": of(value, Samples::min),
            "peer_max": of(value, Samples::max),
            "ratio": self.ratio(),
            "within_noise": self.both().map(|_| self.is_noise()),
            "target": self.aim(),
            "met": match self.verdict() {
                Verdict::Met => Some(true),
                Verdict::Missed => Some(false),
                Verdict::Measured | Verdict::Failed | Verdict::NoPeer => None,
            },
            "error": error(Some(&self.ucr)),
            "peer_error": error(peer.map(|peer| &peer.value)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(better: Better, ucr: &[f64], peer: &[f64], target: Option<Target>) -> Row {
        let samples = |values: &[f64]| Samples::new(values.to_vec()).ok_or("gone".to_owned());
        Row {
            bench: "test",
            workload: "w".to_owned(),
            n: 7,
            unit: "ms",
            better,
            ucr: samples(ucr),
            peer: Some(Peer { name: "peer".to_owned(), value: samples(peer) }),
            target,
        }
    }

    #[test]
    fn a_ratio_says_how_many_times_better() {
        assert_eq!(row(Better::Less, &[2.0], &[40.0], None).ratio(), Some(20.0));
        assert_eq!(row(Better::More, &[40.0], &[20.0], None).ratio(), Some(2.0));
        assert_eq!(row(Better::Less, &[2.0], &[], None).ratio(), None);
        assert_eq!(row(Better::Less, &[0.0], &[40.0], None).ratio(), None);
    }

    #[test]
    fn a_floor_is_told_in_floors() {
        let floor =
            |ucr: &[f64], peer: &[f64]| row(Better::Floor, ucr, peer, Some(Target::Floors(1.3)));
        assert_eq!(floor(&[150.0], &[100.0]).ratio(), Some(1.5));
        assert_eq!(floor(&[150.0], &[100.0]).verdict(), Verdict::Missed);
        assert_eq!(floor(&[130.0], &[100.0]).verdict(), Verdict::Met);
        assert_eq!(floor(&[130.0], &[]).verdict(), Verdict::NoPeer);
        // As cheap as can be is met, though it cannot be told from the floor.
        assert_eq!(floor(&[90.0, 100.0, 110.0], &[95.0, 100.0, 105.0]).verdict(), Verdict::Met);
        assert_eq!(floor(&[1.0], &[1.0]).aim().as_deref(), Some("<= 1.3 times"));
    }

    #[test]
    fn a_target_is_met_missed_or_cannot_be_told() {
        let verdict = |ucr: &[f64], peer: &[f64], target| {
            row(Better::Less, ucr, peer, Some(target)).verdict()
        };
        assert_eq!(verdict(&[2.0], &[40.0], Target::Times(20.0)), Verdict::Met);
        assert_eq!(verdict(&[2.0], &[39.0], Target::Times(20.0)), Verdict::Missed);
        assert_eq!(verdict(&[2.0], &[], Target::Times(20.0)), Verdict::NoPeer);
        assert_eq!(verdict(&[], &[2.0], Target::Times(20.0)), Verdict::Failed);
        assert_eq!(verdict(&[49.0], &[], Target::Below(50.0)), Verdict::Met);
        assert_eq!(verdict(&[50.0], &[], Target::Below(50.0)), Verdict::Missed);
        // Twice as good by the medians, and no better if one looks closer.
        let noisy = [1.0, 1.0, 9.0];
        assert_eq!(verdict(&noisy, &[2.0, 2.0, 2.0], Target::Times(2.0)), Verdict::Missed);
        assert_eq!(row(Better::Less, &[1.0], &[2.0], None).verdict(), Verdict::Measured);
    }

    #[test]
    fn who_may_need_more_is_held_to_how_much_more() {
        let verdict = |ucr: &[f64], peer: &[f64]| {
            row(Better::Less, ucr, peer, Some(Target::Within(1.5))).verdict()
        };
        assert_eq!(verdict(&[3.0], &[2.0]), Verdict::Met);
        assert_eq!(verdict(&[3.1], &[2.0]), Verdict::Missed);
        assert_eq!(verdict(&[2.0, 3.0, 3.0], &[2.0, 2.0, 3.0]), Verdict::Met);
        assert_eq!(verdict(&[3.0], &[]), Verdict::NoPeer);
        let row = row(Better::Less, &[1.0], &[1.0], Some(Target::Within(1.5)));
        assert_eq!(row.aim().as_deref(), Some("<= 1.5 times the peer's"));
    }

    #[test]
    fn json_has_every_column_and_null_for_what_is_not_known() {
        let value = row(Better::Less, &[1.0, 2.0, 4.0], &[], Some(Target::Below(3.0))).json();
        assert_eq!(value["ucr"], 2.0);
        assert_eq!((&value["ucr_min"], &value["ucr_max"]), (&json!(1.0), &json!(4.0)));
        assert_eq!(value["met"], true);
        assert_eq!(value["target"], "< 3 ms");
        assert!(value["peer_value"].is_null() && value["ratio"].is_null());
        assert_eq!(value["peer_error"], "gone");
    }
}
