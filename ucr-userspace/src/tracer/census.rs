//! What iterators say of every socket, to hold the ledger against.

use std::os::fd::AsFd as _;

use aya::maps::HashMap;
use ucr_common::record::Record;
use zerocopy::FromBytes as _;

use super::{TracerError, object::Object, pass};

/// The kernel's view at one moment, as far as a pass is one.
#[derive(Debug)]
pub struct Census {
    /// One for each socket; it has a cookie, and no history.
    pub records: Vec<Record>,
    /// Which network namespaces were visited.
    pub pass: pass::Pass,
}

/// Takes one. The object was loaded with room for it ([`super::object::Sizes::census`]); sockets that
/// do not fit are counted (`census_full`).
///
/// # Errors
/// The kernel's.
pub fn census(object: &mut Object) -> Result<Census, TracerError> {
    object.iterator("census_unix", "unix")?;
    object.iterator("census_inet", "task_file")?;
    let pass = pass::run(object.loaded("census_unix")?.as_fd())?;
    pass::run_everywhere("census_inet", object.loaded("census_inet")?.as_fd())?;
    let failed = |source| TracerError::Map { map: "CENSUS", source };
    let mut map: HashMap<_, u64, [u8; size_of::<Record>()]> =
        HashMap::try_from(object.map("CENSUS")?).map_err(failed)?;
    let mut records = Vec::new();
    let mut keys = Vec::new();
    for entry in &map {
        let (key, bytes) = entry.map_err(failed)?;
        keys.push(key);
        records.extend(Record::read_from_bytes(&bytes).map(Record::join));
    }
    for key in keys {
        map.remove(&key).map_err(failed)?;
    }
    Ok(Census { records, pass })
}
