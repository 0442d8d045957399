//! A number of things, in words.

use std::fmt;

/// `1 socket`, `2 sockets`, `2 processes`, `2 entries`.
#[derive(Clone, Copy, Debug)]
pub struct Count<N>(pub N, pub &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stem, ending) = match (self.0 == N::from(1), self.1.strip_suffix('y')) {
            (true, _) => (self.1, ""),
            (false, Some(stem)) => (stem, "ies"),
            (false, None) if self.1.ends_with('s') => (self.1, "es"),
            (false, None) => (self.1, "s"),
        };
        write!(f, "{} {stem}{ending}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(Count(1_u32, "socket").to_string(), "1 socket");
        assert_eq!(Count(0_usize, "socket").to_string(), "0 sockets");
        assert_eq!(Count(2_u64, "process").to_string(), "2 processes");
        assert_eq!(Count(2_u64, "entry").to_string(), "2 entries");
    }
}
