//! `ucr completions` and `ucr man`: what shells and readers want to know of the command line, from the same
//! definitions as its help.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit;
use crate::render::output::unless_broken_pipe;

/// Print completions for a shell
///
/// For bash: ucr completions bash > /usr/share/bash-completion/completions/ucr
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write a page for each verb
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Where to write ucr.1 and a page for each verb; it is made if it is not there
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints completions.
///
/// # Errors
/// Standard output's; a reader that has seen enough is none.
pub fn completions(args: CompletionsArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    // Into memory first: the generators panic where they cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the page of the program, or writes all pages.
///
/// # Errors
/// The file system's, or standard output's; a reader that has seen enough is none.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let pages = pages(command).context("write a manual page")?;
    let Some(directory) = &args.directory else {
        return print(pages.first().map_or(&[], |page| page.text.as_slice()));
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("create directory {}", directory.display()))?;
    for page in &pages {
        let path = directory.join(&page.file);
        fs::write(&path, &page.text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::from(exit::OK))
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    unless_broken_pipe(out.write_all(text).and_then(|()| out.flush()))?;
    Ok(ExitCode::from(exit::OK))
}

/// A manual page.
struct Page {
    /// Its file's name: `ucr.1`, `ucr-dump.1`.
    file: String,
    /// As `man` reads it.
    text: Vec<u8>,
}

/// The page of the program, then those of its verbs, then those of theirs.
fn pages(command: Command) -> io::Result<Vec<Page>> {
    // `ucr help dump` is what `man ucr-dump` is for.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("ucr {}", command.get_version().unwrap_or_default());
    let mut waiting = vec![command];
    let mut pages = Vec::new();
    while let Some(command) = waiting.pop() {
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        waiting.extend(verbs.cloned());
        // No date: the same sources give the same pages.
        let man = Man::new(command).source(&source);
        let mut text = Vec::new();
        man.render(&mut text)?;
        pages.push(Page { file: man.get_filename(), text });
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, process};

    use clap::{CommandFactory as _, ValueEnum as _};

    use super::{super::Cli, *};

    fn all_pages() -> Vec<(String, String)> {
        let text = |page: Page| (page.file, String::from_utf8(page.text).expect("text"));
        pages(Cli::command()).expect("pages").into_iter().map(text).collect()
    }

    /// The program and all its verbs, nested ones too, as `ucr dump` is written.
    fn verbs() -> Vec<(String, Command)> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut found = vec![("ucr".to_owned(), command)];
        let mut next = 0;
        while let Some((name, command)) = found.get(next).cloned() {
            let below = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            found.extend(below.map(|verb| (format!("{name} {}", verb.get_name()), verb.clone())));
            next += 1;
        }
        found
    }

    #[test]
    fn every_verb_says_what_it_does_and_so_does_every_argument() {
        for (name, command) in verbs() {
            let about = command.get_about().expect("what it does").to_string();
            assert!(!about.is_empty() && !about.ends_with('.'), "{name}: {about}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
            }
        }
    }

    #[test]
    fn every_verb_has_a_page_and_every_page_a_verb() {
        let files: Vec<String> = all_pages().into_iter().map(|(file, _)| file).collect();
        assert_eq!(files.first().map(String::as_str), Some("ucr.1"));
        let wanted: BTreeSet<String> =
            verbs().iter().map(|(name, _)| format!("{}.1", name.replace(' ', "-"))).collect();
        assert_eq!(files.len(), wanted.len());
        assert_eq!(files.into_iter().collect::<BTreeSet<_>>(), wanted);
    }

    #[test]
    fn pages_are_what_man_reads() {
        // What is defined by groff itself, by its `man` macros, and is used.
        let known = ["ie", "el", "TH", "SH", "SS", "TP", "RS", "RE", "PP", "br", "B", "I", "IP"];
        for (file, text) in all_pages() {
            let mut sections = Vec::new();
            let mut depth = 0;
            for line in text.lines() {
                let Some(request) = line.strip_prefix('.') else {
                    assert!(!line.starts_with('\''), "{file}: {line}");
                    continue;
                };
                let word = request.split_whitespace().next().unwrap_or_default();
                assert!(known.contains(&word), "{file}: {line}");
                match word {
                    "SH" => sections.push(request.get(3..).unwrap_or_default().trim_matches('"')),
                    "RS" => depth += 1,
                    "RE" => depth -= 1,
                    _ => {}
                }
            }
            assert_eq!(depth, 0, "{file} ends indented");
            assert!(sections.starts_with(&["NAME", "SYNOPSIS", "DESCRIPTION"]), "{file}");
            // What `apropos` reads.
            let name = file.trim_end_matches(".1").replace('-', "\\-");
            let line = text.lines().skip_while(|line| *line != ".SH NAME").nth(1);
            assert!(
                line.is_some_and(|l| l.starts_with(&format!("{name} \\- "))),
                "{file} {line:?}"
            );
        }
    }

    #[test]
    fn every_shell_gets_completions_that_know_every_verb() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ucr", &mut script);
            let script = String::from_utf8(script).expect("text");
            for (name, command) in verbs() {
                assert!(script.contains(command.get_name()), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn bash_understands_its_completions() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "ucr", &mut script);
        let mut bash = process::Command::new("bash");
        bash.arg("-n").stdin(process::Stdio::piped()).stderr(process::Stdio::piped());
        let mut bash = match bash.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: there is no bash");
                return;
            }
            started => started.expect("bash"),
        };
        bash.stdin.take().expect("a pipe").write_all(&script).expect("it reads");
        let output = bash.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn pages_are_written_into_a_directory_that_need_not_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("share/man1");
        let args = ManArgs { directory: Some(directory.clone()) };
        for _ in 0..2 {
            man(&args, Cli::command()).expect("written");
        }
        let written: BTreeSet<String> = fs::read_dir(&directory)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        assert_eq!(written, all_pages().into_iter().map(|(file, _)| file).collect());
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        let error = man(&ManArgs { directory: Some(file.clone()) }, Cli::command());
        let said = error.expect_err("no directory").to_string();
        assert_eq!(said, format!("create directory {}", file.display()));
    }
}
