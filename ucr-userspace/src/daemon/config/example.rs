//! The documented example: every key of the table, at its default, commented out.

use std::fmt::Write as _;

use super::{
    DEFAULT_FILE,
    keys::{KEYS, Reload, SECTIONS},
};

/// Widest line of a comment.
const WIDTH: usize = 100;

/// What `ucr daemon --print-config` prints: a file that changes nothing and explains everything.
#[must_use]
pub fn example() -> String {
    let mut text = String::new();
    let introduction = format!(
        "Configuration of `ucr daemon`, which looks for it at {DEFAULT_FILE} or where --config says. \
         Each key is shown with its default; without this file all of them hold. Those marked with an \
         asterisk (*) are read again on SIGHUP (`systemctl reload ucr`), the others take a restart."
    );
    comment(&mut text, &introduction);
    for (section, about) in SECTIONS {
        text.push('\n');
        comment(&mut text, about);
        // A string takes all that is written to it.
        writeln!(text, "[{section}]").ok();
        for key in KEYS.iter().filter(|key| key.section == section) {
            let mark = match key.reload {
                Reload::Applies => "* ",
                Reload::NeedsRestart => "",
            };
            text.push('\n');
            comment(&mut text, &format!("{mark}{}", key.meaning));
            comment(&mut text, &format!("Allowed: {}.", key.allowed()));
            writeln!(text, "#{} = {}", key.name, key.default).ok();
        }
    }
    text
}

/// Writes words as lines of a comment.
fn comment(text: &mut String, words: &str) {
    let mut width = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if width == 0 || width + 1 + length > WIDTH {
            text.push_str(if width == 0 { "#" } else { "\n#" });
            width = 1;
        }
        text.push(' ');
        text.push_str(word);
        width += 1 + length;
    }
    text.push('\n');
}
