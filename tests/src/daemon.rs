//! `ucr daemon`, with a configuration, a control socket, a history and pins of one test's own.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr::daemon::{
    client::{Client, ClientError},
    protocol::{About, Reply},
    status::Status,
};

use crate::{
    Follower, Ucr, World,
    ucr::{Answer, Started},
    wait,
};

/// A daemon. It is killed when it is dropped; tracing, which it may leave attached, goes with the world's
/// [`Ucr`], whose pins it uses.
#[derive(Debug)]
pub struct Daemon<'a> {
    ucr: &'a Ucr,
    folder: PathBuf,
    settings: BTreeMap<String, String>,
    process: Option<Started>,
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _killed = process.child().kill();
            let _reaped = process.child().wait();
        }
    }
}

impl<'a> Daemon<'a> {
    /// One that answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(world: &'a World) -> Self {
        Self::start_with(world, &[])
    }

    /// One that answers, with settings like `("followers.queue", "16")`, values as they are written in TOML.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(world: &'a World, settings: &[(&str, &str)]) -> Self {
        let mut daemon = Self::configured(world, settings);
        daemon.begin();
        daemon
    }

    /// One that is yet to be started: by [`Self::begin`], or, if it shall fail, by [`Self::run_to_its_end`].
    ///
    /// # Panics
    /// When its configuration cannot be written.
    #[must_use]
    pub fn configured(world: &'a World, settings: &[(&str, &str)]) -> Self {
        let mut daemon = Self {
            ucr: &world.ucr,
            folder: world.folder().to_owned(),
            settings: BTreeMap::new(),
            process: None,
        };
        let quoted = |path: &Path| format!("{:?}", path.to_str().expect("a path that is text"));
        let (control, history) = (quoted(&daemon.control()), quoted(&daemon.history()));
        daemon.put("control.socket", &control);
        daemon.put("history.file", &history);
        daemon.put("tracing.pin_dir", &quoted(world.ucr.pins()));
        // What has happened is to be found soon.
        daemon.put("history.flush_every", "\"50ms\"");
        if let Some(backend) = world.ucr.forced() {
            daemon.put("tracing.backend", &format!("{backend:?}"));
        }
        for (key, value) in settings {
            daemon.put(key, value);
        }
        daemon.write();
        daemon
    }

    fn put(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    fn write(&self) {
        let lines = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n"));
        fs::write(self.config(), lines.collect::<String>()).expect("write a configuration");
    }

    /// Changes its configuration file; [`Self::reload`] or a restart makes it known.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn set(&mut self, key: &str, value: &str) {
        self.put(key, value);
        self.write();
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("ucr.toml")
    }

    /// Its control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("daemon/control.sock")
    }

    /// Its database.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.folder.join("history/history.db")
    }

    /// The command that starts it.
    #[must_use]
    pub fn daemon_command(&self) -> Command {
        let mut command = self.ucr.command(&["daemon", "--config"]);
        command.arg(self.config());
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "UCR_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// When it runs already, or ends instead.
    pub fn begin(&mut self) {
        self.begin_by(self.daemon_command());
    }

    /// The same by a whole command that becomes it.
    ///
    /// # Panics
    /// As [`Self::begin`].
    pub fn begin_by(&mut self, command: Command) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(Started::new(command));
        self.answers();
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// When it does not run, or ends instead.
    pub fn answers(&mut self) {
        let pid = u32::try_from(self.pid()).expect("a pid");
        wait::until("the daemon to answer", || {
            let process = self.process.as_mut().expect("a daemon that was started");
            if let Some(status) = process.child().try_wait().expect("look at the daemon") {
                panic!("the daemon has ended ({status}): {}", self.said());
            }
            self.status().ok().filter(|status| status.pid == pid).map(drop)
        });
    }

    /// Runs it until it ends by itself, as when something is wrong with its configuration.
    #[must_use]
    pub fn run_to_its_end(&self) -> Answer {
        Started::new(self.daemon_command()).finish()
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("a daemon that runs").pid()
    }

    /// What it has said so far, since it was started last.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.as_ref().expect("a daemon that runs").complaint()
    }

    /// Waits until it has said something.
    ///
    /// # Panics
    /// When it does not.
    pub fn says(&self, words: &str) {
        wait::until(&format!("the daemon to say `{words}`"), || {
            self.said().contains(words).then_some(())
        });
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the daemon");
    }

    /// Lets it read its configuration again, and waits until it has.
    ///
    /// # Panics
    /// When it does not.
    pub fn reload(&self) {
        let told = |said: &str| {
            said.matches("configuration read again").count()
                + said.matches("configuration not read again").count()
                + said.matches("needs a restart").count()
        };
        let before = told(&self.said());
        self.signal(Signal::SIGHUP);
        wait::until("the configuration to be read again", || {
            (told(&self.said()) > before).then_some(())
        });
    }

    /// Ends it as a service manager does, and waits for it. What it said is in the answer.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    #[must_use]
    pub fn stop(&mut self) -> Answer {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    #[must_use]
    pub fn ended(&mut self) -> Answer {
        self.process.take().expect("a daemon that runs").finish()
    }

    /// Kills it, so that it cannot clean up anything.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let answer = self.ended();
        assert_eq!(answer.code, None, "{}", answer.stderr);
    }

    /// Stops and starts it.
    ///
    /// # Panics
    /// When it does not end well, or does not start.
    pub fn restart(&mut self) {
        self.stop().done();
        self.begin();
    }

    /// How it is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status, ClientError> {
        match Client::connect(&self.control())?.ask(About::Status)?.hear()? {
            Some(Reply::Status(status)) => Ok(*status),
            _ => Err(ClientError::OffTopic),
        }
    }

    /// A command that asks it, and nobody else.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ucr.command(arguments);
        self.pointed(&mut command, "daemon");
        command
    }

    /// Lets a command ask this daemon, in this way (`--via`).
    pub fn pointed(&self, command: &mut Command, via: &str) {
        command.env("UCR_CONTROL", self.control()).env("UCR_VIA", via);
    }

    /// Asks it.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Answer {
        Started::new(self.command(arguments)).finish()
    }

    /// Follows events as JSON through it from the moment this returns.
    #[must_use]
    pub fn follow(&self, filters: &[&str]) -> Follower {
        Follower::start(self.command(&[&["trace", "--json"], filters].concat()))
    }
}

impl Ucr {
    /// The backend that this test, or the environment, insists on.
    fn forced(&self) -> Option<String> {
        let own = self.backend_wanted().map(|backend| backend.name().to_owned());
        own.or_else(|| env::var("UCR_BACKEND").ok())
    }
}
