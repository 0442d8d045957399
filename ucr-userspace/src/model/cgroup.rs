//! Stand-in.
use serde::{Deserialize, Serialize};
/// x
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup { /// x
 pub path: Vec<u8>, /// x
 pub unit: Option<String>, /// x
 pub container: Option<String> }
impl Cgroup { /// x
 #[must_use] pub fn of(path: &[u8]) -> Self { Self { path: path.to_vec(), unit: None, container: None } } }
/// x
#[must_use] pub fn parse_proc_cgroup(bytes: &[u8]) -> Option<&[u8]> { bytes.strip_prefix(b"0::") }
