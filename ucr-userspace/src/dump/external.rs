//! What becomes of a connection whose other end is not in the image: rules, as the user gives them.

use std::collections::HashMap;
use std::str::FromStr;

use crate::model::UnixName;

/// What becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// There is no dump.
    #[default]
    Refuse,
    /// The restored end connects anew, by the peer's name.
    Reconnect,
    /// The restored end finds that its peer has closed.
    Dangling,
    /// The restored program gets the very socket, from a process that still has it.
    Keep,
}

impl Policy {
    /// All of them, by name.
    const NAMES: [(&str, Self); 4] = [
        ("refuse", Self::Refuse),
        ("reconnect", Self::Reconnect),
        ("dangling", Self::Dangling),
        ("keep", Self::Keep),
    ];
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    Any,
    /// By its name as it is shown, with `*` for any number of characters.
    Name(String),
    /// By inode: the peer's or that of the end that is dumped.
    Inode(u32),
}

/// One rule: `POLICY`, `NAME=POLICY` or `inode:N=POLICY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    peer: Peer,
    policy: Policy,
}

impl Rule {
    /// A policy for whoever has no rule of his own.
    #[must_use]
    pub const fn any(policy: Policy) -> Self {
        Self { peer: Peer::Any, policy }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may have a `=`; a policy has none.
        let (peer, policy) = match text.rsplit_once('=') {
            None => (Peer::Any, text),
            Some((peer, policy)) => match peer.strip_prefix("inode:") {
                Some(inode) => {
                    let inode =
                        inode.parse().map_err(|_| format!("`{inode}` is no inode number"))?;
                    (Peer::Inode(inode), policy)
                }
                None => (Peer::Name(peer.to_owned()), policy),
            },
        };
        let known = Policy::NAMES.iter().find(|(name, _)| *name == policy);
        let names: Vec<_> = Policy::NAMES.iter().map(|(name, _)| *name).collect();
        let Some((_, policy)) = known else {
            return Err(format!("`{policy}` is none of {}", names.join(", ")));
        };
        Ok(Self { peer, policy: *policy })
    }
}

/// What becomes of the processes that are dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// They go on, and hold what they held.
    #[default]
    GoOn,
    /// They end, if the image is written.
    End,
}

/// All rules. The first that fits counts; one for any peer only if no other fits.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    list: Vec<Rule>,
    then: Then,
    own: HashMap<u32, u64>,
}

impl Rules {
    /// By a list.
    #[must_use]
    pub fn new(list: Vec<Rule>, then: Then) -> Self {
        Self { list, then, own: HashMap::new() }
    }

    /// The same for a caller who has such sockets himself, by inode, so many times.
    #[must_use]
    pub fn beside(self, own: HashMap<u32, u64>) -> Self {
        Self { own, ..self }
    }

    /// How many references to a socket are the caller's.
    pub(super) fn own_references(&self, inode: u32) -> u64 {
        self.own.get(&inode).copied().unwrap_or(0)
    }

    /// What becomes of the processes afterwards.
    #[must_use]
    pub fn then(&self) -> Then {
        self.then
    }

    /// What becomes of a connection with a peer of this name.
    #[must_use]
    pub fn policy(&self, name: &UnixName, inodes: &[u32]) -> Policy {
        self.policy_of(&name.to_string(), inodes)
    }

    /// What becomes of a connection with a peer whose name, or address, is shown like this.
    #[must_use]
    pub fn policy_of(&self, shown: &str, inodes: &[u32]) -> Policy {
        let fits = |rule: &&Rule| match &rule.peer {
            Peer::Any => false,
            Peer::Name(pattern) => matches(pattern, shown),
            Peer::Inode(inode) => inodes.contains(inode),
        };
        let special = self.list.iter().find(fits);
        let general = || self.list.iter().rev().find(|rule| rule.peer == Peer::Any);
        special.or_else(general).map_or(Policy::Refuse, |rule| rule.policy)
    }
}

/// Whether a text fits a pattern in which `*` stands for any number of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = text.split_at(at + part.len()).1;
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str], name: &str, inode: u32) -> Policy {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        let name = match name.strip_prefix('@') {
            Some(name) => UnixName::Abstract(name.into()),
            None => UnixName::Pathname(name.into()),
        };
        Rules::new(rules, Then::GoOn).policy(&name, &[inode])
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_one_for_all_comes_last() {
        assert_eq!(policy(&[], "/run/x", 1), Policy::Refuse);
        assert_eq!(policy(&["dangling"], "/run/x", 1), Policy::Dangling);
        let rules = ["reconnect", "/run/*=keep", "inode:7=dangling", "@a=b*=refuse"];
        assert_eq!(policy(&rules, "/run/x", 7), Policy::Keep);
        assert_eq!(policy(&rules, "/tmp/x", 7), Policy::Dangling);
        assert_eq!(policy(&rules, "/tmp/x", 8), Policy::Reconnect);
        assert_eq!(policy(&rules, "@a=bc", 8), Policy::Refuse);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (text, said) in [("ignore", "none of refuse"), ("inode:x=keep", "no inode number")] {
            let error = text.parse::<Rule>().expect_err(text);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*", "ab", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("a*b*c", "axbybzc", true),
            ("*b", "aba", false),
            ("ab", "abc", false),
            ("a*ba", "aba", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
