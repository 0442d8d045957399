//! What the service manager is told: ready, reloading, stopping, alive, and a line of status
//! (`sd_notify(3)`).
//!
//! Without a service manager nothing is said. The environment is read once, at the start, and left as it
//! is: to change it is unsound as soon as there are threads, and the daemon starts no programs that
//! could inherit it.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;

/// How long a service manager that reads nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<Manager>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// The service manager could not be told something.
#[derive(Debug, thiserror::Error)]
#[error("tell the service manager: {what}")]
pub struct NotifyError {
    /// What it was to be told.
    pub what: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    ///
    /// # Errors
    /// A `NOTIFY_SOCKET` that is no address of a unix socket.
    pub fn from_environment() -> Result<Self, NotifyError> {
        let text = |name: &str| env::var(name).ok();
        let watchdog = watchdog(
            text("WATCHDOG_USEC").as_deref(),
            text("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        match env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) {
            None => Ok(Self::default()),
            Some(address) => Self::to(&address, watchdog),
        }
    }

    /// To a service manager at an address as `NOTIFY_SOCKET` has it: an absolute path, or `@` and an
    /// abstract name. `watchdog` is how often it wants to hear that we are alive, at least.
    ///
    /// # Errors
    /// What is no such address, or the kernel's.
    pub fn to(address: &OsStr, watchdog: Option<Duration>) -> Result<Self, NotifyError> {
        let manager = Manager::at(address)
            .map_err(|source| NotifyError { what: "anything (NOTIFY_SOCKET)", source })?;
        Ok(Self { manager: Some(manager), watchdog })
    }

    /// How often [`Self::alive`] is to be called, if anybody waits for it: twice in the time after which
    /// the service manager gives us up.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.manager.as_ref().and(self.watchdog).map(|limit| limit / 2)
    }

    /// We are up, or have reloaded.
    ///
    /// # Errors
    /// See [`NotifyError`], as for all that follow.
    pub fn ready(&self, status: &str) -> Result<(), NotifyError> {
        let status = line(status);
        self.tell("ready", &[NotifyState::Ready, NotifyState::Status(&status)])
    }

    /// We read our configuration again; [`Self::ready`] has to follow.
    ///
    /// # Errors
    /// See [`NotifyError`].
    pub fn reloading(&self) -> Result<(), NotifyError> {
        let what = "reloading";
        let now =
            NotifyState::monotonic_usec_now().map_err(|source| NotifyError { what, source })?;
        // With `Type=notify-reload` the time tells which reload this is about.
        self.tell(what, &[NotifyState::Reloading, now])
    }

    /// We are about to end.
    ///
    /// # Errors
    /// See [`NotifyError`].
    pub fn stopping(&self) -> Result<(), NotifyError> {
        self.tell("stopping", &[NotifyState::Stopping, NotifyState::Status("stopping")])
    }

    /// We are alive.
    ///
    /// # Errors
    /// See [`NotifyError`].
    pub fn alive(&self) -> Result<(), NotifyError> {
        self.tell("alive", &[NotifyState::Watchdog])
    }

    /// One line that `systemctl status` shows.
    ///
    /// # Errors
    /// See [`NotifyError`].
    pub fn status(&self, status: &str) -> Result<(), NotifyError> {
        self.tell("status", &[NotifyState::Status(&line(status))])
    }

    fn tell(&self, what: &'static str, states: &[NotifyState<'_>]) -> Result<(), NotifyError> {
        let Some(manager) = &self.manager else { return Ok(()) };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        // Sent anew to the address each time: a service manager that was executed again may have another
        // socket there.
        manager
            .socket
            .send_to_addr(lines.join("\n").as_bytes(), &manager.address)
            .map(drop)
            .map_err(|source| NotifyError { what, source })
    }
}

impl Manager {
    fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            Some((b'/', _)) => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no unix socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address })
    }
}

/// A status is one line: what follows a newline would be another statement.
fn line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// How often a service manager wants to hear from this process, of what it says in the environment.
fn watchdog(limit: Option<&str>, meant: Option<&str>, own: u32) -> Option<Duration> {
    // Without a pid it is for whoever reads it (`sd_watchdog_enabled(3)`).
    if meant.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    limit?.parse().ok().filter(|limit| *limit > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager that listens at a path.
    struct Listener {
        _folder: tempfile::TempDir,
        socket: UnixDatagram,
        notifier: Notifier,
    }

    fn listener() -> Listener {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let watchdog = Some(Duration::from_secs(30));
        let notifier = Notifier::to(path.as_os_str(), watchdog).expect("an address");
        Listener { _folder: folder, socket, notifier }
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[test]
    fn a_life_is_told_from_beginning_to_end() {
        let Listener { socket, notifier, .. } = &listener();
        notifier.ready("12 sockets").expect("told");
        assert_eq!(heard(socket), "READY=1\nSTATUS=12 sockets");
        notifier.alive().expect("told");
        assert_eq!(heard(socket), "WATCHDOG=1");
        notifier.status("13 sockets").expect("told");
        assert_eq!(heard(socket), "STATUS=13 sockets");
        notifier.reloading().expect("told");
        let reloading = heard(socket);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
        assert!(time.parse::<u64>().expect("microseconds") > 0);
        notifier.stopping().expect("told");
        assert_eq!(heard(socket), "STOPPING=1\nSTATUS=stopping");
    }

    #[test]
    fn a_status_cannot_hold_another_statement() {
        let Listener { socket, notifier, .. } = &listener();
        notifier.status("a\nMAINPID=1").expect("told");
        assert_eq!(heard(socket), "STATUS=a MAINPID=1");
        notifier.ready("a\nMAINPID=1").expect("told");
        assert_eq!(heard(socket), "READY=1\nSTATUS=a MAINPID=1");
    }

    #[test]
    fn an_abstract_address_is_understood() {
        let name = format!("ucr-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        let notifier = Notifier::to(OsStr::new(&format!("@{name}")), None).expect("an address");
        notifier.alive().expect("told");
        assert_eq!(heard(&socket), "WATCHDOG=1");
        assert_eq!(notifier.watchdog(), None);
    }

    #[test]
    fn without_a_service_manager_nothing_is_said() {
        let nobody = Notifier::default();
        nobody.ready("x").and_then(|()| nobody.stopping()).expect("nothing to do");
        assert_eq!(nobody.watchdog(), None);
    }

    #[test]
    fn what_cannot_be_told_is_an_error_that_says_what() {
        let error = Notifier::to(OsStr::new("vsock:2:1"), None).expect_err("no unix socket");
        assert_eq!(error.to_string(), "tell the service manager: anything (NOTIFY_SOCKET)");
        let gone = Notifier::to(OsStr::new("/nonexistent/notify"), None).expect("an address");
        let error = gone.ready("x").expect_err("nobody there");
        assert_eq!(error.to_string(), "tell the service manager: ready");
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_service_manager_that_reads_nothing_does_not_hold_us_up() {
        let Listener { socket, notifier, .. } = &listener();
        // `net.unix.max_dgram_qlen` messages wait at most.
        let refused = (0..100_000).find_map(|_| notifier.alive().err()).expect("it is full");
        assert_eq!(refused.source.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(heard(socket), "WATCHDOG=1");
    }

    #[test]
    fn the_watchdog_is_for_whom_it_is_meant() {
        let half_a_minute = Some(Duration::from_secs(30));
        assert_eq!(watchdog(Some("30000000"), None, 7), half_a_minute);
        assert_eq!(watchdog(Some("30000000"), Some("7"), 7), half_a_minute);
        assert_eq!(watchdog(Some("30000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("30000000"), Some("x"), 7), None);
        assert_eq!(watchdog(Some("0"), None, 7), None);
        assert_eq!(watchdog(Some("soon"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
        assert_eq!(listener().notifier.watchdog(), Some(Duration::from_secs(15)));
    }
}
