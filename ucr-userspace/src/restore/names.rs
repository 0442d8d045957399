//! Names that a plan needs and that are taken: which of them may be freed, and who holds the rest.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;

use rustix::fs::FileType;

use super::files::Entry;
use super::plan::spot::Spot;
use super::plan::step::Aside;
use super::plan::{PathUse, Plan, Spellings};
use super::private;
use crate::image::{FileId, Image};
use crate::model::{SocketState, SocketType, UnixName, VfsFile, View};
use crate::process::files::same_file;

/// What to do with a file that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Leave it alone and fail.
    Refuse,
    /// Move it aside (`--replace`); never a directory, never a socket that is in use.
    Replace,
}

/// The system that names are looked up in.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its boot id: file identities of an image mean something only within one boot.
    pub boot_id: &'a str,
    /// Its live sockets.
    pub view: &'a View,
    /// `net.core.somaxconn`, if it is known.
    pub somaxconn: Option<u32>,
    /// The live sockets that are replaced when all is done, by their inodes, if any are.
    pub in_place: Option<&'a HashSet<u32>>,
}

/// The kind of a file, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKind(pub FileType);

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            FileType::RegularFile => "a regular file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a named pipe",
            FileType::Socket => "a socket file that is not the image's own",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            FileType::Unknown => "a file of unknown kind",
        })
    }
}

struct Owner(Option<u32>);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(inode) => write!(f, " (inode {inode})"),
            None => f.write_str(" (of another network namespace, or unknown)"),
        }
    }
}

/// Why a name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// A socket holds it now.
    #[error("{name} is taken by a live socket{}", Owner(*owner))]
    Live {
        /// The name, as it is shown.
        name: String,
        /// Its inode, if it is known.
        owner: Option<u32>,
    },
    /// An abstract name can be had once, and it is to be had before it is free.
    #[error(
        "{name} is an abstract name that the socket which is to be replaced has as long as it lives"
    )]
    InPlace {
        /// The name, as it is shown.
        name: String,
    },
    /// A file that is not ours.
    #[error("{spot}: there is {kind}; it is left alone")]
    Foreign {
        /// Where.
        spot: Spot,
        /// What.
        kind: FileKind,
    },
    /// The place cannot be looked at, or its directory is missing.
    #[error("{operation} {spot}: {source}")]
    Unreachable {
        /// What was tried.
        operation: &'static str,
        /// Where.
        spot: Spot,
        /// Why not.
        source: io::Error,
    },
    /// Sockets that lost their files, or whose files are not under their names, cannot be bound.
    #[error(
        "take another root directory, to bind sockets whose files are not under their names: {0}"
    )]
    NoPrivateRoot(io::Error),
}

impl NameError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Foreign { kind: FileKind(FileType::Directory), .. }
            | Self::Unreachable { .. } => None,
            Self::Foreign { .. } => Some("--replace takes its place"),
            Self::NoPrivateRoot(_) => Some("run it as root, or with CAP_SYS_CHROOT"),
            Self::Live { .. } => Some("end the process that holds it first"),
            Self::InPlace { .. } => Some(
                "ucr does not replace such a socket in a live process yet; dump --kill and restore do",
            ),
        }
    }
}

/// Finds paths of a plan that lead to one place: the same name in the same directory, whatever
/// links and `..` lead there.
#[must_use]
pub fn spellings(plan: &Plan) -> Spellings {
    let mut spellings = Spellings::default();
    let mut first: HashMap<(FileId, Vec<u8>), &Spot> = HashMap::new();
    for PathUse { spot, .. } in &plan.paths {
        // One that cannot be opened is found by the survey.
        let Ok(entry) = Entry::of(spot) else { continue };
        let Ok(directory) = entry.directory() else { continue };
        let known = *first.entry((directory, entry.file_name().to_vec())).or_insert(spot);
        if known != spot {
            spellings.insert(spot.clone(), known.clone());
        }
    }
    spellings
}

/// Looks up every name of a plan.
///
/// # Errors
///
/// All names that cannot be had.
pub fn survey(
    plan: &Plan,
    image: &Image,
    here: Here<'_>,
    foreign: Foreign,
) -> Result<Vec<Aside>, Vec<NameError>> {
    let holders = holders(here.view);
    let mut errors: Vec<_> = plan
        .abstract_names
        .iter()
        .filter_map(|(name, socket_type)| {
            let owner = Some(*holders.get(&(name.as_slice(), *socket_type))?);
            let name = UnixName::Abstract(name.clone()).to_string();
            let is_replaced =
                here.in_place.is_some_and(|all| owner.is_some_and(|o| all.contains(&o)));
            Some(match is_replaced {
                true => NameError::InPlace { name },
                false => NameError::Live { name, owner },
            })
        })
        .collect();
    let same_boot = !image.origin.boot_id.is_empty() && image.origin.boot_id == here.boot_id;
    if plan.binds_privately() {
        errors.extend(private::check().err().map(NameError::NoPrivateRoot));
    }
    let mut asides = Vec::new();
    for wanted in &plan.paths {
        match look(wanted, same_boot, here, foreign) {
            Ok(aside) => asides.extend(aside),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(asides) } else { Err(errors) }
}

/// Who holds each abstract name. Connected sockets are passed over: an accepted one shows its
/// listener's name without holding it. If it was a bound client after all, `bind` will say so.
fn holders(view: &View) -> HashMap<(&[u8], SocketType), u32> {
    let holding = view.sockets.values().filter(|socket| {
        socket.state != SocketState::Connected || socket.socket_type == SocketType::Dgram
    });
    holding
        .filter_map(|socket| match &socket.name {
            UnixName::Abstract(name) => Some(((name.as_slice(), socket.socket_type), socket.inode)),
            UnixName::Unnamed | UnixName::Pathname(_) => None,
        })
        .collect()
}

fn look(
    wanted: &PathUse,
    same_boot: bool,
    here: Here<'_>,
    foreign: Foreign,
) -> Result<Option<Aside>, NameError> {
    let spot = &wanted.spot;
    let unreachable = |operation| {
        let spot = spot.clone();
        move |source| NameError::Unreachable { operation, spot, source }
    };
    let entry = Entry::of(spot).map_err(unreachable("open the directory of"))?;
    let Some(facts) = entry.facts().map_err(unreachable("look at"))? else {
        return Ok(None);
    };
    let is_own = same_boot
        && facts.kind == FileType::Socket
        && wanted.own.iter().any(|own| same_file(*own, facts.id));
    let is_live =
        facts.kind == FileType::Socket && entry.is_live(facts).map_err(unreachable("look at"))?;
    if is_live {
        let file = VfsFile::from_stat(facts.id.device, facts.id.inode);
        let mut holders = here.view.sockets.values().filter(|socket| socket.file == Some(file));
        // A listener rather than one of the connections that share its file.
        let first = holders.clone().find(|socket| socket.state != SocketState::Connected);
        let owner = first.or_else(|| holders.next()).map(|socket| socket.inode);
        return match (here.in_place, owner) {
            // It goes when all is done, and its file is exchanged.
            (Some(replaced), Some(owner)) if replaced.contains(&owner) => Ok(None),
            // sock_diag's numbers are those of the file system below, which an overlay hides.
            (Some(_), None) if is_own => Ok(None),
            _ => Err(NameError::Live { name: spot.to_string(), owner }),
        };
    }
    if is_own && here.in_place.is_some() {
        return Ok(None);
    }
    let replaceable = foreign == Foreign::Replace && facts.kind != FileType::Directory;
    if is_own || replaceable {
        return Ok(Some(Aside { spot: spot.clone(), id: facts.id }));
    }
    Err(NameError::Foreign { spot: spot.clone(), kind: FileKind(facts.kind) })
}
