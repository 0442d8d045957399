//! What was measured, by name, before rows are made of it: a guest measures, and the host makes the rows.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{row::Measured, samples::Samples};

/// Measurements, each of which has a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<String, Measured>);

impl Figures {
    /// One more.
    pub(super) fn set(&mut self, name: String, measured: Measured) {
        self.0.insert(name, measured);
    }

    /// The one that is called so.
    pub(super) fn get(&self, name: &str) -> Measured {
        self.0.get(name).cloned().unwrap_or_else(|| Err("was not measured".to_owned()))
    }

    /// Of two figures one, by their medians.
    pub(super) fn of_both(&self, names: [&str; 2], figure: impl Fn(f64, f64) -> f64) -> Measured {
        let [first, second] = names.map(|name| self.get(name));
        Ok(Samples::one(figure(first?.median(), second?.median())))
    }

    /// One figure less the median of another: what is common to both. None if nothing is left that could be
    /// compared with anything.
    pub(super) fn less(&self, name: &str, start: &str) -> Measured {
        let start = self.get(start).map_err(|why| format!("its start-up: {why}"))?.median();
        let rest = self.get(name)?.map(|value| value - start);
        if rest.median() > 0.0 {
            Ok(rest)
        } else {
            Err("takes no longer than its start-up".to_owned())
        }
    }

    /// One line.
    pub(super) fn write(&self) -> String {
        let entry = |(name, measured): (&String, &Measured)| {
            let value = match measured {
                Ok(samples) => json!(samples.values()),
                Err(why) => json!(why),
            };
            (name.clone(), value)
        };
        Value::Object(self.0.iter().map(entry).collect::<Map<_, _>>()).to_string()
    }

    /// What [`Figures::write`] has written.
    pub(super) fn read(line: &str) -> Result<Self> {
        let entries: Map<String, Value> = serde_json::from_str(line).context("read figures")?;
        let entry = |(name, value): (String, Value)| {
            let measured = match value {
                Value::String(why) => Err(why),
                value => {
                    let values = value.as_array().context("a list of numbers")?;
                    let values = values.iter().map(|value| value.as_f64().context("a number"));
                    let samples = Samples::new(values.collect::<Result<_>>()?);
                    Ok(samples.context("at least one number")?)
                }
            };
            Ok((name, measured))
        };
        entries.into_iter().map(entry).collect::<Result<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        figures.set("a".to_owned(), Samples::new(vec![3.0, 1.5, 9.25]).ok_or_else(String::new));
        figures.set("b".to_owned(), Ok(Samples::one(1.0)));
        figures.set("c".to_owned(), Err("no \"such\" program".to_owned()));
        figures
    }

    #[test]
    fn what_is_written_is_read_again() {
        let line = figures().write();
        assert!(!line.contains('\n'));
        assert_eq!(Figures::read(&line).expect("figures"), figures());
        for wrong in ["", "[]", r#"{"a": []}"#, r#"{"a": [true]}"#, r#"{"a": 1}"#] {
            assert!(Figures::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_figure_of_two_needs_both() {
        let figures = figures();
        assert_eq!(figures.of_both(["a", "b"], |a, b| a / b), Ok(Samples::one(3.0)));
        assert_eq!(figures.of_both(["a", "c"], |a, _| a), Err("no \"such\" program".to_owned()));
        assert_eq!(figures.get("d"), Err("was not measured".to_owned()));
        assert_eq!(figures.less("a", "b").map(|less| less.min()), Ok(0.5));
        assert_eq!(figures.less("b", "a"), Err("takes no longer than its start-up".to_owned()));
        assert!(figures.less("a", "c").is_err_and(|why| why.starts_with("its start-up: ")));
    }
}
