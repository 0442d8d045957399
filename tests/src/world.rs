//! What one test has for itself: a folder, names, a pin directory, victims.

use std::{
    fmt::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

use crate::{
    Ucr, Victim, outside,
    ucr::{NOBODY, OpenProgram, Started},
};

/// Every tracer sees the sockets of the whole machine: a flood in one test would make another
/// one's follower lose events.
static COMPANY: RwLock<()> = RwLock::new(());

/// The surroundings of one test.
#[derive(Debug)]
pub struct World {
    /// `ucr` with this test's pin directory.
    pub ucr: Ucr,
    folder: TempDir,
    victim: &'static Path,
    count: AtomicU32,
    restored: Mutex<Vec<Started>>,
    // The last fields: they go when all else is gone.
    _company: Option<RwLockReadGuard<'static, ()>>,
    _solitude: Option<RwLockWriteGuard<'static, ()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        let mut restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
        for program in restored.iter_mut() {
            let _killed = program.child().kill();
            let _reaped = program.child().wait();
        }
    }
}

impl World {
    /// A new one; `victim` is the program.
    ///
    /// # Panics
    /// When there is no folder to be had.
    #[must_use]
    pub fn new(victim: &'static str) -> Self {
        let others = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
        Self::among(victim, Some(others), None)
    }

    /// A new one for a test that makes thousands of sockets: no other test runs meanwhile.
    ///
    /// # Panics
    /// When there is no folder to be had.
    #[must_use]
    pub fn alone(victim: &'static str) -> Self {
        let nobody = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
        Self::among(victim, None, Some(nobody))
    }

    fn among(
        victim: &'static str,
        company: Option<RwLockReadGuard<'static, ()>>,
        solitude: Option<RwLockWriteGuard<'static, ()>>,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("ucr-").tempdir().expect("a folder");
        let count = AtomicU32::new(0);
        let restored = Mutex::default();
        Self {
            ucr: Ucr::default(),
            folder,
            victim: Path::new(victim),
            count,
            restored,
            _company: company,
            _solitude: solitude,
        }
    }

    /// Lets a restored program live until the end of the test.
    pub fn keep(&self, restored: Started) {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).push(restored);
    }

    /// Ends the programs that were restored so far.
    ///
    /// # Panics
    /// When one cannot be ended.
    pub fn end_restored(&self) {
        let mut restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
        for mut program in restored.drain(..) {
            program.child().kill().expect("end a restored program");
            program.child().wait().expect("reap a restored program");
        }
    }

    fn number(&self) -> u32 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// The test's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the test's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The path of a socket in the test's folder, as `sun_path` bytes.
    #[must_use]
    pub fn path_name(&self, name: &str) -> Vec<u8> {
        self.path(name).into_os_string().into_encoded_bytes()
    }

    /// An abstract name that nobody else has, as `sun_path` bytes: with the leading NUL.
    #[must_use]
    pub fn abstract_name(&self, rest: &[u8]) -> Vec<u8> {
        let mut name = b"\0".to_vec();
        name.extend_from_slice(self.ucr.name().as_encoded_bytes());
        name.extend_from_slice(rest);
        name
    }

    /// Starts a victim.
    #[must_use]
    pub fn victim(&self) -> Victim {
        Victim::start(Command::new(self.victim), &self.control())
    }

    /// Starts a victim by a command that executes it.
    ///
    /// # Panics
    /// When the command is empty.
    #[must_use]
    pub fn victim_under(&self, command: &[&str]) -> Victim {
        let (program, arguments) = command.split_first().expect("a command");
        let mut command = Command::new(program);
        command.args(arguments).arg(self.victim);
        Victim::start(command, &self.control())
    }

    /// Starts a victim as `nobody`.
    #[must_use]
    pub fn victim_as_nobody(&self) -> Victim {
        let open = OpenProgram::new(self.victim);
        let mut command = open.command();
        command.uid(NOBODY).gid(NOBODY);
        Victim::start(command, &self.control())
    }

    /// Starts a victim as the first process of a new pid namespace, with `unshare`. It has two pids:
    /// its own, which it goes by, and the second value, by which we know it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn victim_in_pid_namespace(&self) -> (Victim, i32) {
        let control = self.control();
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
        unshare.arg(self.victim).arg(&control);
        let victim = Victim::start_with(unshare, &control);
        let parent = victim.child_id();
        let pid = outside::children(i32::try_from(parent).expect("a pid")).first().copied();
        (victim, pid.expect("its pid"))
    }

    /// Where the named pipes of one more victim are to be.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.path(&format!("control-{}", self.number()))
    }

    /// The command that runs a victim behind such pipes, for `ucr restore`.
    #[must_use]
    pub fn victim_command(&self, control: &Path) -> [String; 2] {
        [self.victim, control].map(|path| path.display().to_string())
    }

    /// Restores an image into victims, one for each saved process (the root first), and waits
    /// until all have started.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn restore(&self, image: &Path, saved: &[i32]) -> (Vec<Victim>, Started) {
        self.restore_with(&[], image, saved)
    }

    /// The same with options.
    ///
    /// # Panics
    /// As [`restore`](Self::restore).
    #[must_use]
    pub fn restore_with(
        &self,
        options: &[&str],
        image: &Path,
        saved: &[i32],
    ) -> (Vec<Victim>, Started) {
        let controls: Vec<PathBuf> = saved.iter().map(|_| self.control()).collect();
        let mut arguments = vec!["restore".to_owned(), image.display().to_string()];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        if let [control] = controls.as_slice() {
            arguments.push("--".to_owned());
            arguments.extend(self.victim_command(control));
        } else {
            for (pid, control) in saved.iter().zip(&controls) {
                let [program, control] = self.victim_command(control);
                arguments.push(format!("--exec={pid}={program} {control}"));
            }
        }
        let mut waiting: Vec<_> = controls.iter().map(|base| Victim::expected(base)).collect();
        let started = self.ucr.start(&arguments);
        for victim in &mut waiting {
            victim.greet(&started);
        }
        (waiting, started)
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _written: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes behind hexadecimal digits.
///
/// # Errors
/// When there is something else among them.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2);
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())
    });
    bytes.collect::<Option<_>>().ok_or_else(|| format!("not hexadecimal: {text}"))
}
