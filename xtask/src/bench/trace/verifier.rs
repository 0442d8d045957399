//! How many instructions the verifier follows in each program, in the guests, whose kernels everybody can
//! have. The table is compared with by a story (`backends::verifier`).

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    super::{
        row::{Better, Measured, Row, Target},
        samples::Samples,
        stage::Stage,
    },
    BENCH,
    overhead::ask_guest,
};
use crate::{commands, vm::Kernel};

/// Half of where the verifier gives up. As in `ucr_tests::verifier`.
const TARGET: Target = Target::Below(500_000.0);

/// Instructions by program.
type Counts = BTreeMap<String, u64>;

/// On each kernel: the largest program, and all together.
pub(super) fn run(stage: &Stage, write: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut table = BTreeMap::new();
    for kernel in Kernel::ALL {
        let measured =
            ask_guest(stage, kernel, &["verifier".to_owned()]).and_then(|answer| counts(&answer));
        let counts = match measured {
            Ok(counts) => counts,
            Err(why) => {
                let why = Err(format!("{why:#}"));
                rows.push(row(format!("verifier, {kernel}"), 0, why, Some(TARGET)));
                continue;
            }
        };
        let number = |n: u64| u32::try_from(n).map(|n| Samples::one(f64::from(n)));
        let (name, most) = counts.iter().max_by_key(|(_, n)| **n).context("no program at all")?;
        let n = counts.len();
        let largest = format!("verifier, {kernel}: the largest program, {name}");
        rows.push(row(largest, n, Ok(number(*most)?), Some(TARGET)));
        let all = format!("verifier, {kernel}: all programs");
        rows.push(row(all, n, Ok(number(counts.values().sum())?), None));
        table.insert(kernel.to_string(), counts);
    }
    print!("{}", show(&table));
    if write && table.len() == Kernel::ALL.len() {
        let path = path();
        let text = format!("{:#}\n", serde_json::to_value(&table).context("write the table")?);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(rows)
}

fn path() -> PathBuf {
    commands::root().join("ucr-ebpf/verifier.json")
}

/// What a guest has counted.
fn counts(answer: &Value) -> Result<Counts> {
    let programs = answer.get("programs").and_then(Value::as_object).context("no programs")?;
    let of = |(name, count): (&String, &Value)| {
        Ok((name.clone(), count.as_u64().with_context(|| format!("the count of {name}"))?))
    };
    programs.iter().map(of).collect()
}

/// A line for each program, a column for each kernel.
fn show(table: &BTreeMap<String, Counts>) -> String {
    let names: std::collections::BTreeSet<&String> =
        table.values().flat_map(BTreeMap::keys).collect();
    let line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>9}")).collect();
        format!("{name:<30}{cells}\n")
    };
    let mut text = line("instructions verified", table.keys().cloned().collect());
    for name in names {
        let cell =
            |counts: &Counts| counts.get(name).map_or_else(|| "-".to_owned(), u64::to_string);
        text += &line(name, table.values().map(cell).collect());
    }
    text
}

fn row(workload: String, n: usize, ucr: Measured, target: Option<Target>) -> Row {
    Row {
        bench: BENCH,
        workload,
        n: u64::try_from(n).unwrap_or(u64::MAX),
        unit: "instructions",
        better: Better::Less,
        ucr,
        peer: None,
        target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_program_that_a_kernel_does_not_have_is_a_dash() {
        let of = |answer: Value| counts(&answer).expect("counts");
        let table = BTreeMap::from([
            ("6.1".to_owned(), of(json!({ "programs": { "a": 7 } }))),
            ("6.12".to_owned(), of(json!({ "programs": { "a": 8, "b": 123_456 } }))),
        ]);
        let expected = [
            "instructions verified                6.1      6.12\n",
            "a                                      7         8\n",
            "b                                      -    123456\n",
        ];
        assert_eq!(show(&table), expected.concat());
        counts(&json!({ "programs": { "a": "many" } })).expect_err("no number");
    }
}
