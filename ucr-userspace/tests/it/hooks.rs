//! What `docs/KERNEL.md` says of hooks and blind spots is what the code has.

use ucr::tracer::hooks::{Backend, Hook, Need, Point};

use crate::support::is_documented;

fn row(hook: &Hook) -> String {
    let place = match hook.point {
        Point::Tracepoint(name) => format!("tracepoint `{name}`"),
        Point::Entry(name) => format!("entry of `{name}`"),
        Point::Exit(name) => format!("exit of `{name}`"),
    };
    let without = match hook.need {
        Need::Required => "the backend cannot be had".to_owned(),
        Need::Optional => "it is left out".to_owned(),
        Need::With(other) => format!("it is left out, also without `{other}`"),
        Need::InPlaceOf(other) => format!("(in place of `{other}`, one of them is needed)"),
        Need::PreferablyInPlaceOf(other) => format!("(in place of `{other}`) both are left out"),
    };
    let prototypes: Vec<String> = hook.prototypes.iter().map(|text| format!("`{text}`")).collect();
    format!("| `{}` | {place} | {} | {without} |", hook.program, prototypes.join(" or "))
}

fn section() -> String {
    let mut text = String::new();
    for backend in Backend::ALL {
        text += &["\n### ", backend.name(), "\n\n"].concat();
        if !backend.hooks().is_empty() {
            text += "| program | place | prototype | without it |\n|---|---|---|---|\n";
            let rows: Vec<String> = backend.hooks().iter().map(row).collect();
            text += &rows.join("\n");
            text += "\n\n";
        }
        text += "It cannot see:\n\n";
        let spots: Vec<String> =
            backend.blind_spots().iter().map(|spot| format!("- {spot}\n")).collect();
        text += &spots.concat();
    }
    text + "\n"
}

#[test]
fn the_document_says_what_the_code_has() {
    is_documented("KERNEL.md", "hooks", &section());
}

#[test]
fn no_program_is_in_two_places() {
    for backend in Backend::ALL {
        let mut programs: Vec<&str> = backend.hooks().iter().map(|hook| hook.program).collect();
        programs.sort_unstable();
        let all = programs.len();
        programs.dedup();
        assert_eq!(programs.len(), all, "a link is pinned under its program's name");
    }
}
