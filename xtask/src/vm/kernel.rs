//! The kernels that are booted, and which packages of Debian are theirs.

use std::{fmt, str::FromStr};

/// A series of stock kernels, of which the newest in the archive is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kernel {
    /// Debian 12's own.
    Debian61,
    /// Debian 12's newer one, which is Debian 13's own.
    Debian612,
}

impl Kernel {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Debian61, Self::Debian612];

    /// The series, as it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian61 => "6.1",
            Self::Debian612 => "6.12",
        }
    }

    /// What every package of the series begins with.
    pub(super) fn prefix(self) -> String {
        format!("{PREFIX}{}.", self.name())
    }

    /// The newest of the packages that are of this series.
    pub(super) fn newest<'a>(self, packages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        packages
            .filter(|package| package.starts_with(&self.prefix()))
            .filter_map(|package| Some((version(package)?, package)))
            .max()
            .map(|(_, package)| package)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kernel| kernel.name() == name);
        known.ok_or_else(|| {
            format!("there is no kernel `{name}`, but {}", Self::ALL.map(Self::name).join(" and "))
        })
    }
}

const PREFIX: &str = "linux-image-";
/// Not `-cloud-amd64-unsigned` and not `-cloud-amd64-dbg`: they are other packages.
const SUFFIX: &str = "-cloud-amd64";

/// The numbers in a package's name, which are compared one by one: `6.12.117+deb12` is newer than
/// `6.12.9+bpo`, `6.1.0-56` newer than `6.1.0-9`.
fn version(package: &str) -> Option<Vec<u32>> {
    let version = package.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let numbers = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: [&str; 10] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-57-amd64",
        "linux-image-6.1.0-58-cloud-amd64-unsigned",
        "linux-image-6.1.0-59-cloud-amd64-dbg",
        "linux-image-6.10.11+bpo-cloud-amd64",
        "linux-image-6.12.9+bpo-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.100+deb12-cloud-amd64",
        "linux-image-cloud-amd64",
    ];

    #[test]
    fn the_newest_is_found_by_number() {
        let newest = |kernel: Kernel| kernel.newest(PACKAGES.into_iter());
        assert_eq!(newest(Kernel::Debian61), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(Kernel::Debian612), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(Kernel::Debian61.newest(std::iter::empty()), None);
    }

    #[test]
    fn a_kernel_is_known_by_its_series() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
        assert!("6.2".parse::<Kernel>().is_err_and(|error| error.contains("6.1 and 6.12")));
    }
}
