//! Two images of the same sockets, held against each other up to renumbering: pids, inodes and
//! cookies are new, descriptors and all else must be as they were.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What came out.
pub(super) struct Compared {
    /// Sockets of the first image.
    pub(super) sockets: u64,
    /// Of these, found again as they were.
    pub(super) same: u64,
    /// The others, and what there is too much.
    pub(super) differences: Vec<String>,
}

/// A place: process and descriptor.
type Place = (u64, i64);

/// Compares; `pids` leads from the processes of `before` to those of `after`.
pub(super) fn images(before: &Value, after: &Value, pids: &BTreeMap<u64, u64>) -> Result<Compared> {
    let fresh = described(after, Some)?;
    let mut compared = Compared { sockets: 0, same: 0, differences: Vec::new() };
    for (places, wanted) in described(before, |pid| pids.get(&pid).copied())? {
        compared.sockets += 1;
        match fresh.get(&places) {
            Some(found) if *found == wanted => compared.same += 1,
            found => compared.differences.push(format!("at {places:?}: {wanted} became {found:?}")),
        }
    }
    let now = u64::try_from(fresh.len())?;
    if now != compared.sockets {
        compared.differences.push(format!("{} sockets became {now}", compared.sockets));
    }
    Ok(compared)
}

/// Every socket by its places: what it is, and the places of its peer.
fn described(
    image: &Value,
    renumber: impl Fn(u64) -> Option<u64>,
) -> Result<BTreeMap<Vec<Place>, Value>> {
    let list = |name: &'static str| image[name].as_array().context(name);
    let mut places: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
    for descriptor in list("descriptors")? {
        let pid = descriptor["pid"].as_u64().context("a descriptor's pid")?;
        let pid = renumber(pid).with_context(|| format!("who took the place of {pid}"))?;
        let fd = descriptor["fd"].as_i64().context("a descriptor's number")?;
        let socket = descriptor["socket"].as_u64().context("a descriptor's socket")?;
        places.entry(socket).or_default().push((pid, fd));
    }
    for places in places.values_mut() {
        places.sort_unstable();
    }
    let mut peers = BTreeMap::new();
    for connection in list("connections")? {
        let end = |name: &str| connection[name].as_u64();
        let ends = end("a").zip(end("b")).or_else(|| end("client").zip(end("server")));
        let (a, b) = ends.context("the ends of a connection")?;
        // Which end is which matters, too.
        let kind = &connection["kind"];
        peers.insert(a, json!([kind, places.get(&b)]));
        peers.insert(b, json!([kind, places.get(&a)]));
    }
    let mut described = BTreeMap::new();
    for (index, socket) in (0..).zip(list("sockets")?) {
        let fields = ["type", "role", "backlog", "status_flags", "shutdown", "options"];
        let mut what: BTreeMap<&str, Value> =
            fields.iter().map(|field| (*field, socket[*field].clone())).collect();
        what.insert("name", socket["bound"]["name"].clone());
        what.insert("peer", peers.get(&index).cloned().unwrap_or_default());
        let places = places.remove(&index).context("a descriptor of each socket")?;
        described.insert(places, json!(what));
    }
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pid: u64, name: &str, peer: u64) -> Value {
        let socket = |name: &str| json!({ "type": "stream", "bound": { "name": name } });
        json!({
            "sockets": [socket(name), socket("b"), socket("c")],
            "descriptors": [
                { "pid": pid, "fd": 3, "socket": 0 },
                { "pid": pid, "fd": 4, "socket": 1 },
                { "pid": pid, "fd": 5, "socket": 2 },
            ],
            "connections": [{ "kind": "pair", "a": 0, "b": peer }],
        })
    }

    #[test]
    fn pids_may_differ_and_nothing_else() {
        let pids = BTreeMap::from([(1, 2)]);
        let same = |after: &Value| {
            let compared = images(&image(1, "a", 1), after, &pids).expect("comparable");
            assert_eq!(compared.same == 3, compared.differences.is_empty());
            compared.same
        };
        assert_eq!(same(&image(2, "a", 1)), 3);
        assert_eq!(same(&image(2, "other", 1)), 2);
        assert_eq!(same(&image(2, "a", 2)), 0, "the peer is another one");
        assert_eq!(same(&image(9, "a", 1)), 0, "another process has them");
    }
}
