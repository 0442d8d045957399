//! The kernel's features as a table for people.

use std::fmt;

use comfy_table::presets;

use crate::features::{Report, Support};

/// A report, shown for people.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a Report);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["FEATURE", "SUPPORT", "USED FOR", "DETAIL"]);
        for feature in &report.features {
            let (support, detail) = match &feature.support {
                Support::Supported(detail) => ("supported", detail),
                Support::Unsupported(why) => ("unsupported", why),
                Support::Unknown(error) => ("unknown", error),
            };
            table.add_row([feature.name, support, feature.purpose, detail]);
        }
        writeln!(f, "{}", table.trim_fmt())?;
        writeln!(f)?;
        writeln!(
            f,
            "kernel {}, backend {}: {}",
            report.kernel,
            report.backend.name(),
            report.reason
        )?;
        for offer in &report.offers {
            let missing = if offer.available {
                "available here".to_owned()
            } else {
                format!("not available here, for want of {}", offer.missing.join(", "))
            };
            writeln!(f, "\n{} ({missing}) cannot see:", offer.backend.name())?;
            offer.blind_spots.iter().try_for_each(|spot| writeln!(f, "  - {spot}"))?;
        }
        Ok(())
    }
}
