//! Where the demo plays: a folder, a pin directory, the built programs in `PATH`; and how what is
//! done there is shown: the command as one would type it, and what it said.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cleanup::{Cleanup, Started};

/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// The stage.
pub(super) struct Stage<'a> {
    folder: PathBuf,
    pins: String,
    path: OsString,
    cleanup: &'a Cleanup,
}

/// A command of `ucr`, ready to be run.
pub(super) struct Call<'a> {
    stage: &'a Stage<'a>,
    arguments: Vec<String>,
}

impl<'a> Stage<'a> {
    /// Makes the folder; `programs` is where the built programs are.
    pub(super) fn new(programs: &Path, cleanup: &'a Cleanup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ucr-demo-").tempdir();
        let folder = folder.context("make a folder")?.keep();
        cleanup.folder(folder.clone());
        let mut path = OsString::from(programs);
        path.push(":");
        path.push(crate::commands::search_path());
        // One of our own: tracing that is attached already is left alone.
        let pins = format!("/sys/fs/bpf/ucr-demo-{}", std::process::id());
        let stage = Self { folder, pins, path, cleanup };
        cleanup.detach_with(stage.command("ucr", &["detach".to_owned()]));
        println!("$ cd {}; export UCR_PIN_DIR={}", stage.folder.display(), stage.pins);
        Ok(stage)
    }

    /// A line of the story.
    pub(super) fn say(&self, line: &str) {
        println!("\n# {line}");
    }

    /// A path in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, program: &str, arguments: &[String]) -> Command {
        let found = env::split_paths(&self.path)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file());
        let mut command = Command::new(found.unwrap_or_else(|| program.into()));
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("UCR_PIN_DIR", &self.pins)
            .env_remove("UCR_CLOEXEC_FDS")
            .stdin(Stdio::null());
        command
    }

    /// A command of `ucr` from words between blanks.
    pub(super) fn ucr(&self, words: &str) -> Call<'_> {
        Call { stage: self, arguments: words.split(' ').map(str::to_owned).collect() }
    }

    /// Starts a program that talks through pipes, and shows the command.
    pub(super) fn start_talking(&self, program: &str, arguments: &[String]) -> Result<Started> {
        self.show_command(program, arguments, " &");
        let mut command = self.command(program, arguments);
        self.cleanup.start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    /// Starts a program that writes to files: `NAME.out` and `NAME.err`.
    pub(super) fn start_writing(
        &self,
        name: &str,
        program: &str,
        arguments: &[String],
    ) -> Result<Started> {
        self.show_command(program, arguments, " &");
        let file = |kind| {
            let path = self.path(&format!("{name}.{kind}"));
            fs::File::create(&path).with_context(|| format!("create {}", path.display()))
        };
        let mut command = self.command(program, arguments);
        self.cleanup.start(command.stdout(file("out")?).stderr(file("err")?))
    }

    /// Waits for a program's end.
    pub(super) fn ended(&self, pid: u32) -> Result<ExitStatus> {
        self.until(&format!("process {pid} to end"), || self.cleanup.ended(pid))
    }

    /// Waits for a condition.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("waited in vain for {what}");
            }
            thread::sleep(GLANCE);
        }
    }

    fn show_command(&self, program: &str, arguments: &[String], end: &str) {
        let words = std::iter::once(program).chain(arguments.iter().map(String::as_str));
        let line = shlex::try_join(words).unwrap_or_default();
        println!("$ {line}{end}");
    }
}

impl Call<'_> {
    /// Adds an argument that holds blanks.
    pub(super) fn with(mut self, argument: String) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Runs it and shows what it said. Fails if it does.
    pub(super) fn show(self) -> Result<()> {
        self.stage.show_command("ucr", &self.arguments, "");
        let (out, err) = self.run()?;
        print!("{out}{err}");
        Ok(())
    }

    /// Runs it with `--json` and takes the answer, without showing it.
    pub(super) fn json(mut self) -> Result<Value> {
        self.arguments.push("--json".to_owned());
        self.stage.show_command("ucr", &self.arguments, " > …");
        let (out, _) = self.run()?;
        serde_json::from_str(&out).context("understand what ucr printed as JSON")
    }

    /// Starts it, to become another program that talks through pipes.
    pub(super) fn start_talking(self) -> Result<Started> {
        self.stage.start_talking("ucr", &self.arguments)
    }

    fn run(&self) -> Result<(String, String)> {
        let mut command = self.stage.command("ucr", &self.arguments);
        let output = self.stage.cleanup.run(&mut command)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            bail!("ucr {} ended with {}\n{out}{err}", self.arguments.join(" "), output.status);
        }
        Ok((out, err))
    }
}
