//! Drops what comes for locked connections at the interfaces, where that is before anybody could answer it: by links,
//! which go with their holder, or by filters where the kernel has no such links.

use std::{
    fmt::{self, Display, Formatter},
    os::fd::AsFd as _,
};

use aya_obj::generated::{BPF_F_BEFORE, bpf_attach_type};
use nix::net::if_::if_nameindex;

use super::{
    EARLY, LINK, Links, LockError, failed,
    filters::{self, Filters},
    object::Object,
};
use crate::{causes::errno, kernel::netns, sys::bpf};

/// A test says by it that links are not to be tried.
const FORCED: &str = "UCR_LOCK_EARLY";

/// How programs are hung on interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By links (`tcx`). Linux 6.6.
    Links,
    /// By filters (`tc`), which the kernel has by its modules `sch_ingress` and `cls_bpf`.
    Filters,
}

impl Way {
    fn forced() -> Option<Self> {
        (std::env::var_os(FORCED)? == "tc").then_some(Self::Filters)
    }
}

impl Display for Way {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Links => "by links (tcx)",
            Self::Filters => "by filters (tc clsact, bpf)",
        })
    }
}

/// The program on the interfaces of a network namespace.
#[derive(Debug)]
pub(super) enum Early {
    Links(Links),
    Filters(Filters),
}

impl Early {
    /// Hangs the program on every interface of this network namespace, in front of all that looks at packets.
    pub(super) fn attach(object: &mut Object) -> Result<Self, LockError> {
        if Way::forced() == Some(Way::Filters) {
            return Filters::hang(object).map(Self::Filters);
        }
        match links(object) {
            Err(error) if is_unknown(&error) => {
                tracing::debug!(%error, "filters are taken in place of links");
                Filters::hang(object).map(Self::Filters)
            }
            links => links.map(Self::Links),
        }
    }
}

/// How this kernel hangs programs on interfaces, tried in a network namespace of one's own.
pub(super) fn attempt(object: &mut Object) -> Result<Way, LockError> {
    let attempt = || {
        if Way::forced() == Some(Way::Filters) {
            return filters::attempt(object).map(|()| Way::Filters);
        }
        match links(object) {
            Err(error) if is_unknown(&error) => filters::attempt(object).map(|()| Way::Filters),
            links => links.map(|_| Way::Links),
        }
    };
    netns::run_apart(attempt).map_err(|source| LockError::Files {
        operation: "leave",
        path: netns::OWN.into(),
        source,
    })?
}

/// Whether that is what a kernel says that does not know such links.
fn is_unknown(error: &LockError) -> bool {
    matches!(errno(error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn links(object: &mut Object) -> Result<Links, LockError> {
    let program = object.program(EARLY)?;
    let interfaces = if_nameindex().map_err(|errno| filters::no_interfaces(errno.into()))?;
    let mut links = Links::new();
    for interface in &interfaces {
        // Before nobody in particular: before all.
        let (index, at) = (interface.index(), bpf_attach_type::BPF_TCX_INGRESS as u32);
        match bpf::link(program.as_fd(), index, at, BPF_F_BEFORE) {
            // It has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            link => links.push((format!("{EARLY}-{index}"), link.map_err(failed(EARLY, LINK))?)),
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use aya::programs::{ProgramInfo, SchedClassifier, tc::TcAttachType};

    use super::*;

    /// Who comes before may let packets in. (Where the kernel has no such links, filters are taken, whose order has a
    /// test of its own.)
    #[test]
    fn whoever_hangs_it_up_last_comes_first() {
        let hang = || {
            let mut object = Object::open()?;
            let links = links(&mut object)?;
            let id =
                bpf::program_id(object.program(EARLY)?.as_fd()).map_err(failed(EARLY, "fdinfo"))?;
            Ok::<_, LockError>((links, id))
        };
        let hung = netns::run_apart(|| {
            let ((one, first), (other, second)) = (hang()?, hang()?);
            let (_, there) =
                SchedClassifier::query_tcx("lo", TcAttachType::Ingress).expect("list them");
            drop((one, other));
            Ok((there.iter().map(ProgramInfo::id).collect::<Vec<_>>(), [second, first]))
        });
        match hung.expect("a network namespace") {
            Err(error) if is_unknown(&error) => {}
            hung => {
                let (there, expected) = hung.expect("hang them up");
                assert_eq!(there, expected);
            }
        }
    }
}
