//! The daemon as its clients see it.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, socket, sockopt},
    time::{TimeVal, TimeValLike as _},
};

use super::{
    frame::{self, FrameError},
    protocol::{About, LONGEST_REPLY, PROTOCOL, Question, Refusal, Reply},
};

/// How long an answer may be waited for. Following takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the daemon has not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("no daemon answers at {path}")]
    NotThere {
        /// Its control socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be connected to.
    #[error("connect to the daemon at {path}")]
    Connect {
        /// Its control socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The question could not be put.
    #[error("ask the daemon")]
    Ask(#[source] io::Error),
    /// The answer could not be read.
    #[error("hear the daemon")]
    Hear(#[from] FrameError),
    /// It does not answer.
    #[error("the daemon refuses: {0}")]
    Refused(#[source] Refusal),
    /// It answers something else.
    #[error("the daemon answers something that was not asked")]
    OffTopic,
}

impl ClientError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotThere { .. } => Some("`ucr daemon` starts one; --via kernel does without"),
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("only root and the group that the daemon is configured with may ask it")
            }
            // It is the next cause, and has its own.
            _ => None,
        }
    }
}

/// A connection to the daemon, for one question.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NotThere`], [`ClientError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        match connect(path) {
            Ok(socket) => Ok(Self { socket }),
            Err(source)
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ClientError::NotThere { path: path.to_owned(), source })
            }
            Err(source) => Err(ClientError::Connect { path: path.to_owned(), source }),
        }
    }

    /// The process that listens.
    #[must_use]
    pub fn daemon(&self) -> Option<u32> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.socket).ok()?;
        u32::try_from(credentials.pid.as_raw_nonzero().get()).ok()
    }

    /// Puts the question.
    ///
    /// # Errors
    /// The socket's.
    pub fn ask(mut self, about: About) -> Result<Answers, ClientError> {
        let patience = if matches!(about, About::Trace(_)) { None } else { Some(PATIENCE) };
        self.socket.set_read_timeout(patience).map_err(ClientError::Ask)?;
        let question = Question { protocol: PROTOCOL, about };
        match frame::write_now(&mut self.socket, &question) {
            // It may have refused already, and closed: then that is to be read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Ask(error)),
            _ => Ok(Answers { socket: io::BufReader::new(self.socket) }),
        }
    }
}

/// Connects, but does not wait for long if the daemon lets nobody in any more.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    // The kernel waits for room in the backlog for as long as this.
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(5))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)?;
    let socket = UnixStream::from(socket);
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// What the daemon answers.
#[derive(Debug)]
pub struct Answers {
    socket: io::BufReader<UnixStream>,
}

impl Answers {
    /// The next one; `None` after the last.
    ///
    /// # Errors
    /// A refusal, or the socket's.
    pub fn hear(&mut self) -> Result<Option<Reply>, ClientError> {
        let limit = u64::try_from(LONGEST_REPLY).unwrap_or(u64::MAX);
        match frame::read_now(&mut self.socket, limit)? {
            Reply::Refused(refusal) => Err(ClientError::Refused(refusal)),
            Reply::End => Ok(None),
            reply => Ok(Some(reply)),
        }
    }

    /// The socket, for who waits for more than one thing.
    #[must_use]
    pub fn into_socket(self) -> UnixStream {
        self.socket.into_inner()
    }
}
