//! Which tests run where, beside those of this host, which are all. This is the place to change it.
//!
//! A guest is 5 to 9 times slower than its host, and both guests together keep two processors busy: what
//! is the same on every kernel (a pure function, a restore on another backend) runs once, or only
//! on the host.

use super::programs::Program;
use crate::vm::Kernel;

/// What sees sockets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Trampoline,
    Tracepoint,
}

impl Backend {
    /// As `UCR_BACKEND` wants it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trampoline => "trampoline",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// A line of the matrix: on one kernel, with one backend.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) kernel: Kernel,
    pub(super) backend: Backend,
    pub(super) parts: &'static [Part],
}

/// Tests of one program.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) program: Program,
    /// Beginnings of names; none means all.
    pub(super) only: &'static [&'static str],
    /// Beginnings of names that are left out although they are among these.
    pub(super) but: &'static [&'static str],
}

/// All of them. Those of one kernel run in one guest, one after the other.
pub(super) const RUNS: [Run; 4] = [
    Run { kernel: Kernel::Debian61, backend: Backend::Trampoline, parts: &SEEING },
    Run { kernel: Kernel::Debian61, backend: Backend::Tracepoint, parts: &EVENTS },
    Run { kernel: Kernel::Debian612, backend: Backend::Trampoline, parts: &SEEING_AND_CHOOSING },
    Run { kernel: Kernel::Debian612, backend: Backend::Tracepoint, parts: &EVENTS },
];

const KERNEL: Part =
    Part { program: Program::Unit, only: &["kernel::", "snapshot::", "tracer::"], but: &[] };

/// What a kernel can make a difference to: how sockets are seen, and what is made of it.
const SIGHT: Part = Part {
    program: Program::Stories,
    only: &[
        "backends::forced::a_dump_from_a_snapshot",
        "backends::forced::what_features_offers",
        "backends::leftovers::detach_leaves",
        "backends::loss::",
        "backends::prototypes::",
        "backends::same::",
        "backends::verifier::each_program",
        // 10 to 30 seconds each there: what the kernel itself makes a difference to.
        "connections::closing::when_the_other_end",
        "connections::established::full_queues_over_ipv6",
        "connections::filters::nobody_answers",
        "connections::filters::they_let_everything_pass",
        "connections::locked::nobody_answers",
        "internet::ended::its_socket",
        "internet::groups::who_shares",
        "internet::pairs::it_is_in_another",
        "internet::udp::what_waits",
        "internet::waiting::both_ends_are_in_the_image_over_ipv6",
        "families::a_netlink",
        "refreshing::epoll::they",
        "refreshing::peers::each_end_sees_it_also",
        "refreshing::ports::listeners",
        "connections::refreshed::over_ipv6",
        "connections::refreshed::by_a_dump",
        "tracing::events::",
    ],
    but: &[],
};

/// What is the same on all kernels, as far as is known, and is looked at on one of these. (A restore is the same but
/// for what it reads from the kernel's memory; what it does with files is looked at on the host.)
const OLDER: Part = Part {
    program: Program::Stories,
    only: &[
        "doors::",
        "restoring::datagrams::",
        "restoring::queues::",
        "restoring::waiting::",
        "slow::truth::the_ledger_is",
        "tracing::closing::",
    ],
    but: &[],
};
const NEWER: Part = Part {
    program: Program::Stories,
    only: &[
        "asking::who::",
        "backends::blind_spots::",
        "dumping::obstacles::looking_at",
        "dumping::provenance::",
        "dumping::threads::",
        "dumping::verdicts::",
        "internet::blind_spots::",
        "restoring::credentials::",
        "restoring::passed::",
        "restoring::settings::",
    ],
    but: &[],
};

/// What takes a kernel with two backends, but no matter which.
const CHOICE: Part = Part {
    program: Program::Stories,
    only: &["backends::forced::"],
    but: &["backends::forced::a_dump_from_a_snapshot", "backends::forced::what_features_offers"],
};

const SEEING: [Part; 3] = [KERNEL, SIGHT, OLDER];
const SEEING_AND_CHOOSING: [Part; 4] = [KERNEL, SIGHT, NEWER, CHOICE];

/// What a backend can make a difference to that is there on every kernel: it is looked at in full on the
/// host.
const EVENTS: [Part; 1] = [Part {
    program: Program::Stories,
    only: &["backends::loss::events", "features::", "tracing::events::"],
    but: &[],
}];

impl Part {
    /// Whether a test is among them.
    pub(super) fn has(&self, test: &str) -> bool {
        let begins =
            |beginnings: &[&str]| beginnings.iter().any(|beginning| test.starts_with(beginning));
        (self.only.is_empty() || begins(self.only)) && !begins(self.but)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_what_begins_as_it_says() {
        let part = Part { program: Program::Stories, only: &["a::", "b::c"], but: &["a::slow::"] };
        assert!(part.has("a::x") && part.has("b::c") && part.has("b::cd"));
        assert!(!part.has("b::d") && !part.has("a::slow::x") && !part.has("x::a::"));
        let all = Part { program: Program::Stories, only: &[], but: &["slow::"] };
        assert!(all.has("a::slow::x") && !all.has("slow::x"));
    }

    #[test]
    fn each_kernel_is_in_the_table() {
        for kernel in Kernel::ALL {
            assert!(RUNS.iter().any(|run| run.kernel == kernel), "{kernel}");
        }
    }
}
