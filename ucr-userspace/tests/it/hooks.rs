//! What `docs/KERNEL.md` says of hooks and blind spots is what the code has.

use std::fs;

use ucr::tracer::hooks::{Backend, Hook, Need, Point};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/KERNEL.md");
const BEGIN: &str = "<!-- hooks: begin -->\n";
const END: &str = "<!-- hooks: end -->";

fn row(hook: &Hook) -> String {
    let place = match hook.point {
        Point::Tracepoint(name) => format!("tracepoint `{name}`"),
        Point::Entry(name) => format!("entry of `{name}`"),
        Point::Exit(name) => format!("exit of `{name}`"),
    };
    let without = match hook.need {
        Need::Required => "the backend cannot be had".to_owned(),
        Need::Optional => "it is left out".to_owned(),
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
    let text = fs::read_to_string(DOCUMENT).expect("read docs/KERNEL.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the part begins");
    let (written, after) = rest.split_once(END).expect("where the part ends");
    let section = section();
    if std::env::var_os("UCR_WRITE_DOCS").is_some() {
        let whole = format!("{before}{BEGIN}{section}{END}{after}");
        fs::write(DOCUMENT, whole).expect("write docs/KERNEL.md");
    } else {
        assert_eq!(written, section, "UCR_WRITE_DOCS=1 writes it anew");
    }
}

#[test]
fn no_program_is_in_two_places() {
    let mut programs: Vec<&str> =
        Backend::ALL.iter().flat_map(|backend| backend.hooks()).map(|hook| hook.program).collect();
    programs.sort_unstable();
    let all = programs.len();
    programs.dedup();
    assert_eq!(programs.len(), all, "a link is pinned under its program's name");
}
