//! The kernel modules that a guest gets, in the order in which they can be loaded.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::bzimage;

/// By which a guest reaches its root, what ucr asks the kernel with and hangs programs on interfaces by, what the
/// stories make other hosts of, and what criu needs to dump and restore network namespaces. What a kernel has built in
/// has no file and is left out.
const WANTED: [&str; 16] = [
    "virtio_pci",
    "virtiofs",
    "unix_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "packet_diag",
    "netlink_diag",
    "sch_ingress",
    "cls_bpf",
    "veth",
    "bridge",
    "tun",
    "nf_tables",
    "nf_conntrack",
    "nf_conntrack_netlink",
];

/// A module, as `insmod` takes it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The wanted modules below a folder, each after those that it depends on.
pub(super) fn wanted(folder: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    list(folder, &mut files)?;
    in_order(&WANTED, |name| files.get(name).map(|path| read(path)).transpose())
}

/// Every module below a folder, by the name that other modules use for it.
fn list(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let packer = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(bytes),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is packed in an unknown way", path.display()),
    };
    bzimage::unpack(Command::new(packer).arg("-dc"), &bytes)
        .with_context(|| format!("unpack {}", path.display()))
}

/// The wanted ones and all that they need; `get` knows those that are files.
fn in_order(wanted: &[&str], get: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Vec<Module>> {
    /// A module whose dependencies come first.
    enum Step {
        Look(String),
        Take(Module),
    }
    let mut order: Vec<Module> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut steps: Vec<Step> =
        wanted.iter().rev().map(|&name| Step::Look(name.to_owned())).collect();
    while let Some(step) = steps.pop() {
        match step {
            Step::Take(module) => order.push(module),
            Step::Look(name) if seen.contains(&name) => {}
            Step::Look(name) => {
                seen.push(name.clone());
                if let Some(bytes) = get(&name)? {
                    let needs = dependencies(&bytes);
                    steps.push(Step::Take(Module { name, bytes }));
                    steps.extend(needs.into_iter().rev().map(Step::Look));
                }
            }
        }
    }
    Ok(order)
}

/// What a module says that it depends on: its section `.modinfo` holds strings, one of which begins
/// with `depends=`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let strings = module.split(|byte| *byte == 0);
    let depends = strings.filter_map(|string| string.strip_prefix(b"depends="));
    depends
        .flat_map(|names| names.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(wanted: &[&str], files: &[(&str, &str)]) -> Vec<String> {
        let get = |name: &str| {
            let file = files.iter().find(|(file, _)| *file == name);
            Ok(file.map(|(_, needs)| format!("ELF\0license=GPL\0depends={needs}\0x").into_bytes()))
        };
        in_order(wanted, get).unwrap().into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn a_module_comes_after_those_that_it_needs() {
        let files = [("a", "b,c"), ("b", "d"), ("c", "d"), ("d", ""), ("e", "")];
        assert_eq!(ordered(&["a", "e"], &files), ["d", "b", "c", "a", "e"]);
        assert_eq!(ordered(&["d", "a"], &files), ["d", "b", "c", "a"]);
    }

    #[test]
    fn what_is_built_in_is_left_out() {
        assert_eq!(ordered(&["built_in", "a"], &[("a", "built_in,b"), ("b", "")]), ["b", "a"]);
    }

    #[test]
    fn dependencies_are_names_without_dashes() {
        assert_eq!(dependencies(b"x\0depends=nf-tables,tun\0alias=y\0"), ["nf_tables", "tun"]);
        assert_eq!(dependencies(b"depends=\0"), Vec::<String>::new());
        assert_eq!(dependencies(b"\x7fELF"), Vec::<String>::new());
    }
}
