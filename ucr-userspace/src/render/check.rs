//! Whether a dump would succeed, for people and programs.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::{
    dump::{Table, UNPAIRED, found},
    obstacle::Placed,
};
use crate::{dump::Verify, model::Count};

/// What a dump would come to. It holds nothing of the processes, which may go on.
#[derive(Clone, Debug)]
pub struct Report {
    /// The sockets, with their verdicts.
    pub table: Table,
    /// What is in the way.
    pub obstacles: Vec<Placed>,
    /// Why nothing could bring the image back, if that is so.
    pub hopeless: Option<String>,
    /// What disagreements mean.
    pub verify: Verify,
    /// How large the image would be; `None` if there would be none.
    pub bytes: Option<u64>,
    /// How long the processes stood still.
    pub stopped: Duration,
}

impl Report {
    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut fields = serde_json::Map::new();
        fields.insert("would_succeed".to_owned(), json!(self.bytes.is_some()));
        fields.append(&mut found(&self.table, &self.obstacles));
        fields.insert("not_restorable".to_owned(), json!(self.hopeless));
        fields.insert("verify".to_owned(), json!(self.verify));
        fields.insert("disagreements".to_owned(), json!(self.table.disagreements()));
        fields.insert("unknown".to_owned(), json!(self.unknown()));
        fields.insert("image_bytes".to_owned(), json!(self.bytes));
        fields.insert("stopped_ms".to_owned(), json!(self.stopped.as_secs_f64() * 1000.0));
        fields.into()
    }

    /// What nobody can tell, since nothing was tracked.
    fn unknown(&self) -> &'static [&'static str] {
        match self.table.is_checked() {
            true => &[],
            false => &[
                "whether the kernel reports of these sockets what really happened to them",
                "who made them, and when",
                "in which order connections were accepted (that of the inodes is taken)",
                "for some connections, which end connected (where names do not tell)",
                "where a relative path was bound (if its file does not tell)",
            ],
        }
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = self.table.figures();
        if let Some(bytes) = self.bytes {
            let image = Count(bytes, "byte");
            return writeln!(f, "a dump would succeed: {figures}, in an image of {image}");
        }
        let count = |n: usize, what| (n > 0).then(|| Count(n, what).to_string());
        let disagreements = match self.verify {
            Verify::Strict => self.table.disagreements().len(),
            Verify::Warn | Verify::Off => 0,
        };
        let hopeless =
            self.hopeless.as_ref().map(|why| format!("it could not be restored ({why})"));
        let reasons = [
            count(self.obstacles.len(), "obstacle"),
            hopeless,
            count(disagreements, "disagreement"),
        ];
        let reasons: Vec<String> = reasons.into_iter().flatten().collect();
        writeln!(f, "a dump would be refused: {}; found: {figures}", reasons.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict(f)?;
        for obstacle in &self.obstacles {
            writeln!(f, "cannot dump {obstacle}")?;
            writeln!(f, "  hint: {}", obstacle.hint())?;
        }
        writeln!(f, "{}", self.table.verdicts())?;
        let disagreements = self.table.disagreements();
        for disagreement in &disagreements {
            writeln!(f, "  {disagreement}")?;
        }
        if !disagreements.is_empty() {
            let meaning = match self.verify {
                Verify::Strict => {
                    "hint: `ucr reconcile` repairs what was tracked; --verify warn takes \
                             what the kernel has"
                }
                Verify::Warn | Verify::Off => "the image would be written as the kernel has it",
            };
            writeln!(f, "  {meaning}")?;
        }
        for unknown in self.unknown() {
            writeln!(f, "  unknown: {unknown}")?;
        }
        if let Some(why) = self.table.unpaired() {
            writeln!(f, "  unknown: {UNPAIRED}: {why}")?;
        }
        let stopped = self.stopped.as_secs_f64() * 1000.0;
        writeln!(f, "stopped for {stopped:.1} ms; nothing was written")
    }
}
