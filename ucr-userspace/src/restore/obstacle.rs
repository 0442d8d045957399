//! What is in the way of a restore, all of it, before anything is done.

use std::{collections::HashSet, io, os::fd::AsFd as _};

use serde::{Serialize, Serializer};

use super::arm::{self, OwnerError};
use super::into::IntoError;
use super::names::{self, Foreign, Here, NameError};
use super::outside::{self, OutsideError};
use super::plan::Plan;
use super::plan::step::Aside;
use super::program::{self, CommandError, Program};
use super::reserve::{self, ReserveError, Wanted};
use crate::image::{Image, InetOption, Role, SocketIndex};
use crate::model::{inet::Protocol, name::Escaped};
use crate::process::inet;

/// One thing that is in the way.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// A name cannot be had.
    #[error(transparent)]
    Name(NameError),
    /// The kernel would cut a backlog down silently (`__sys_listen`).
    #[error(
        "socket {} has a backlog of {backlog}, and net.core.somaxconn is {somaxconn} here", socket.0
    )]
    Backlog {
        /// Whose.
        socket: SocketIndex,
        /// What the image says.
        backlog: u32,
        /// What this network namespace allows.
        somaxconn: u32,
    },
    /// There is no such network interface.
    #[error("a socket has to do with the network interface {}, which is not here", Escaped(name))]
    Interface {
        /// Its name.
        name: Vec<u8>,
    },
    /// The kernel has no such algorithm (TCP_CONGESTION).
    #[error("socket {} is to have the congestion control {}: {source}", socket.0, Escaped(name))]
    Congestion {
        /// Whose.
        socket: SocketIndex,
        /// What the image says.
        name: Vec<u8>,
        /// Why not.
        source: io::Error,
    },
    /// Descriptor numbers cannot be had.
    #[error(transparent)]
    Descriptors(ReserveError),
    /// Who is told by a signal cannot be.
    #[error(transparent)]
    Owner(OwnerError),
    /// What is to be had of a process outside cannot be.
    #[error(transparent)]
    Outside(OutsideError),
    /// A program cannot be executed.
    #[error(transparent)]
    Command(CommandError),
    /// A live process cannot take it.
    #[error(transparent)]
    Into(IntoError),
}

impl Obstacle {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Name(error) => error.hint(),
            Self::Backlog { .. } => {
                Some("raise net.core.somaxconn first, with sysctl -w in this network namespace")
            }
            Self::Congestion { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "load its module first, as in: modprobe tcp_bbr (net.ipv4.tcp_available_congestion_control)",
            ),
            Self::Congestion { .. } => Some(
                "allow it, or run it with CAP_NET_ADMIN (net.ipv4.tcp_allowed_congestion_control)",
            ),
            Self::Interface { .. } => {
                Some("make one of that name first, or give one that name (ip link set … name …)")
            }
            Self::Descriptors(error) => error.hint(),
            Self::Owner(error) => Some(error.hint()),
            Self::Outside(error) => Some(error.hint()),
            Self::Command(_) => None,
            Self::Into(error) => error.hint(),
        }
    }

    /// Whether a socket has the name that is wanted.
    #[must_use]
    pub fn is_live_socket(&self) -> bool {
        matches!(self, Self::Name(NameError::Live { .. }))
    }
}

/// In words, with what to do about it.
impl Serialize for Obstacle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let kind = match self {
            Self::Name(_) => "name",
            Self::Backlog { .. } => "backlog",
            Self::Interface { .. } => "interface",
            Self::Congestion { .. } => "congestion",
            Self::Descriptors(_) => "descriptors",
            Self::Owner(_) => "owner",
            Self::Outside(_) => "outside",
            Self::Command(_) => "command",
            Self::Into(_) => "into",
        };
        let mut fields = serializer.serialize_struct("Obstacle", 3)?;
        fields.serialize_field("kind", kind)?;
        fields.serialize_field("text", &self.to_string())?;
        fields.serialize_field("hint", &self.hint())?;
        fields.end()
    }
}

/// Who gets the sockets.
#[derive(Debug)]
pub enum Takers<'a> {
    /// Programs that are started.
    Programs(&'a mut [Program]),
    /// Processes that live, and which sockets are replaced there, by their inodes.
    Processes(&'a HashSet<u32>),
}

/// Looks for everything that a restore needs: names, backlogs, descriptor numbers, programs.
///
/// # Errors
///
/// All that is in the way.
pub fn survey(
    plan: &Plan,
    image: &Image,
    here: Here<'_>,
    foreign: Foreign,
    takers: &mut Takers<'_>,
) -> Result<Vec<Aside>, Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let asides = names::survey(plan, image, here, foreign).unwrap_or_else(|errors| {
        obstacles.extend(errors.into_iter().map(Obstacle::Name));
        Vec::new()
    });
    if let Some(somaxconn) = here.somaxconn {
        for (socket, saved) in (0..).map(SocketIndex).zip(&image.sockets) {
            if let Role::Listening { backlog } = saved.role
                && backlog > somaxconn
            {
                obstacles.push(Obstacle::Backlog { socket, backlog, somaxconn });
            }
        }
    }
    obstacles.extend(congestion(image));
    let leads = matches!(takers, Takers::Programs(_));
    obstacles.extend(arm::check(image, here.boot_id, leads).into_iter().map(Obstacle::Owner));
    obstacles.extend(outside::check(plan, image, here).into_iter().map(Obstacle::Outside));
    let wanted = match takers {
        Takers::Programs(_) => Wanted::by(image),
        Takers::Processes(_) => Wanted::beside(image),
    };
    obstacles.extend(reserve::check(&wanted).err().map(Obstacle::Descriptors));
    if let Takers::Programs(programs) = takers {
        obstacles.extend(program::resolve(programs).into_iter().map(Obstacle::Command));
    }
    if obstacles.is_empty() { Ok(asides) } else { Err(obstacles) }
}

/// Congestion controls that are not to be had, each once: tried on a socket of our own.
fn congestion(image: &Image) -> Vec<Obstacle> {
    let mut tried = HashSet::new();
    let mut obstacles = Vec::new();
    for (socket, saved) in (0..).map(SocketIndex).zip(&image.sockets) {
        let Some(saved) = saved.inet.as_deref() else { continue };
        let is_it = |option: &&InetOption| {
            (option.level, option.number) == (libc::SOL_TCP, libc::TCP_CONGESTION)
        };
        let Some(option) = saved.options.iter().find(is_it) else { continue };
        if !tried.insert(&option.value) {
            continue;
        }
        let attempt = || inet::set(inet::create(saved.family, Protocol::Tcp)?.as_fd(), option);
        if let Err(source) = attempt() {
            let name = option.value.iter().copied().take_while(|byte| *byte != 0).collect();
            obstacles.push(Obstacle::Congestion { socket, name, source });
        }
    }
    obstacles
}
