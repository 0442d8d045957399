//! What a cgroup's path tells: which unit of systemd's a process belongs to, and which container.
//!
//! Paths are what `/proc/PID/cgroup` shows. The kernel does not let a cgroup's name have a newline in
//! it (`cgroup_mkdir`); all other bytes are possible, and whoever may make cgroups may call them
//! anything, also like a container.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::Escaped;

/// A cgroup's path and what it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// From the root of the hierarchy, with a slash at its front.
    pub path: Vec<u8>,
    /// The innermost unit of systemd's that is no slice, such as `nginx.service`. Printable: what
    /// systemd escaped is shown as what it stands for.
    pub unit: Option<String>,
    /// The innermost slice, such as `system.slice`. Printable.
    pub slice: Option<String>,
    /// The innermost container.
    pub container: Option<Container>,
}

/// A container, by the name of its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Who runs it.
    pub runtime: Runtime,
    /// All of its id or name. Printable.
    pub id: String,
    /// The Kubernetes pod that it is in: its uid, as the API server knows it.
    pub pod: Option<String>,
}

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// `BuildKit`, which builds images.
    Buildkit,
    /// containerd, for Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker.
    Docker,
    /// Garden, of Cloud Foundry.
    Garden,
    /// Kubernetes; its cgroup driver does not tell which runtime.
    Kubernetes,
    /// LXC, and what is built upon it (LXD, Incus, Proxmox).
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// Podman.
    Podman,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Buildkit => "buildkit",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Garden => "garden",
            Self::Kubernetes => "kubernetes",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Podman => "podman",
        })
    }
}

impl fmt::Display for Container {
    /// Runtime and id: twelve digits of an id, as the runtimes show it themselves, or a whole name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.id.get(..12).filter(|_| is_id(self.id.as_bytes()));
        write!(f, "{}:{}", self.runtime, digits.unwrap_or(&self.id))
    }
}

/// The kinds of units, but for slices, that have a cgroup (`unit_vtable` with
/// `cgroup_context_offset`).
const UNITS: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];

/// What stands before the id of a container in the name of its cgroup. (Processes that only look
/// after a container are in `libpod-conmon-…`, `crio-conmon-…`: no ids.)
const PREFIXES: [(&[u8], Runtime); 6] = [
    (b"docker-", Runtime::Docker),
    (b"libpod-payload-", Runtime::Podman),
    (b"libpod-", Runtime::Podman),
    (b"cri-containerd-", Runtime::Containerd),
    (b"nerdctl-", Runtime::Containerd),
    (b"crio-", Runtime::Crio),
];

/// The cgroup that those of the containers are in, where these have an id for a name.
const PARENTS_OF_IDS: [(&[u8], Runtime); 3] = [
    (b"docker", Runtime::Docker),
    (b"cri-containerd", Runtime::Containerd),
    (b"crio", Runtime::Crio),
];

/// The same, where they have any name.
const PARENTS: [(&[u8], Runtime); 4] = [
    (b"lxc", Runtime::Lxc),
    (b"lxc.payload", Runtime::Lxc),
    (b"garden", Runtime::Garden),
    (b"buildkit", Runtime::Buildkit),
];

impl Cgroup {
    /// Takes a path apart.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let mut cgroup = Self { path: path.to_vec(), ..Self::default() };
        let (mut parent, mut pod): (&[u8], _) = (b"", None);
        for name in path.split(|byte| *byte == b'/').flat_map(parts) {
            // systemd puts this before what would look like a file of the kernel's (`cg_escape`).
            let plain = name.strip_prefix(b"_").unwrap_or(name);
            if is_of_kind(plain, b".slice") {
                cgroup.slice = Some(shown(plain));
            } else if UNITS.iter().any(|kind| is_of_kind(plain, kind)) {
                cgroup.unit = Some(shown(plain));
            }
            pod = pod_of(plain).or(pod);
            if let Some((runtime, id)) = container(parent, plain) {
                cgroup.container = Some(Container { runtime, id, pod: pod.clone() });
            }
            parent = plain;
        }
        cgroup
    }
}

/// The path of a process's cgroup, from the content of `/proc/PID/cgroup`: that of version 2; or
/// that of systemd's own hierarchy, where version 2 is not in use. `None` if there is neither.
#[must_use]
pub fn parse_proc_cgroup(content: &[u8]) -> Option<&[u8]> {
    let path_of = |start: &[u8]| {
        let mut lines = content.split(|byte| *byte == b'\n');
        let path = lines.find_map(|line| line.strip_prefix(start))?;
        // Said of a cgroup that is gone while a process of it is not yet reaped.
        Some(path.strip_suffix(b" (deleted)").unwrap_or(path))
    };
    let unified = path_of(b"0::");
    let systemd = || {
        content.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
            (fields.next()? == b"name=systemd").then(|| fields.next())?
        })
    };
    // There, everybody is in the root of version 2.
    unified.filter(|path| *path != b"/").or_else(systemd).or(unified)
}

/// What a name consists of: `kubepods-pod1.slice:cri-containerd:ID` is what runc makes of a path
/// for systemd when it does not use systemd. Other colons are just that.
fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_several = name.rsplit(|byte| *byte == b':').next().is_some_and(is_id);
    name.split(move |byte| is_several && *byte == b':')
}

fn container(parent: &[u8], name: &[u8]) -> Option<(Runtime, String)> {
    let base = name.strip_suffix(b".scope").unwrap_or(name);
    if let Some(found) = PREFIXES.iter().find_map(|(prefix, runtime)| {
        let id = base.strip_prefix(*prefix).filter(|id| is_id(id))?;
        Some((*runtime, shown(id)))
    }) {
        return Some(found);
    }
    let among = |table: &[(&[u8], Runtime)]| {
        let (_, runtime) = table.iter().find(|(known, _)| *known == parent)?;
        Some((*runtime, shown(name)))
    };
    if is_id(name) {
        let in_pod = || pod_of(parent).map(|_| (Runtime::Kubernetes, shown(name)));
        return among(&PARENTS_OF_IDS).or_else(in_pod).or_else(|| among(&PARENTS));
    }
    if let Some(name) = name.strip_prefix(b"lxc.payload.").filter(|name| !name.is_empty()) {
        return Some((Runtime::Lxc, shown(name)));
    }
    let machine = base.strip_prefix(b"machine-").filter(|_| parent == b"machine.slice");
    if let Some(machine) = machine.map(shown) {
        // libvirt registers its machines as well: these are no containers of systemd's.
        let is_ours = !machine.starts_with("qemu-") && !machine.starts_with("lxc-");
        return is_ours.then_some((Runtime::Nspawn, machine));
    }
    if let Some(machine) = name.strip_prefix(b"systemd-nspawn@") {
        let machine = machine.strip_suffix(b".service")?;
        return Some((Runtime::Nspawn, shown(machine)));
    }
    among(&PARENTS).filter(|_| !name.is_empty())
}

/// The uid of a pod, from `podUID` or `kubepods-burstable-podUID.slice`, where the hyphens of the uid
/// are underscores.
fn pod_of(name: &[u8]) -> Option<String> {
    let name = name
        .strip_suffix(b".slice")
        .map_or(name, |slice| slice.rsplit(|byte| *byte == b'-').next().unwrap_or(slice));
    let uid = shown(name.strip_prefix(b"pod")?).replace('_', "-");
    // A static pod's is a hash of its manifest: 32 digits without hyphens.
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let hyphens = uid.bytes().filter(|byte| *byte == b'-').count();
    (digits == 32 && digits + hyphens == uid.len()).then_some(uid)
}

/// All these runtimes have ids of 256 bits, in hexadecimal digits.
fn is_id(name: &[u8]) -> bool {
    name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit)
}

fn is_of_kind(name: &[u8], kind: &[u8]) -> bool {
    name.len() > kind.len() && name.ends_with(kind)
}

/// A name in printable characters: of systemd's escapes those are undone that stand for one.
fn shown(name: &[u8]) -> String {
    let mut rest = name;
    let mut text = String::with_capacity(name.len());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            text.push_str(&Escaped(&[byte]).to_string());
            continue;
        }
        match unescape(behind) {
            Some((byte, behind)) => {
                text.push(char::from(byte));
                rest = behind;
            }
            None => text.push('\\'),
        }
    }
    text
}

/// A printable byte that `xNN` stands for.
fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, behind) = text.strip_prefix(b"x")?.split_at_checked(2)?;
    let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    let byte = u8::from_str_radix(digits, 16).ok()?;
    (matches!(byte, b' '..=b'~') && byte != b'\\').then_some((byte, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8a3b5f1c-2d4e-4f6a-9b8c-7d6e5f4a3b2c";

    /// Unit, slice, container, pod: as they are shown; `-` for none.
    fn told(path: &str) -> [String; 4] {
        let path = path.replace("UID", UID).replace("ID", ID);
        let Cgroup { unit, slice, container, .. } = Cgroup::of(path.as_bytes());
        let pod = container.as_ref().and_then(|container| container.pod.clone());
        [unit, slice, container.map(|container| container.to_string()), pod]
            .map(|one| one.unwrap_or_else(|| "-".to_owned()).replace(ID, "ID").replace(UID, "UID"))
    }

    fn check(table: &[(&str, [&str; 4])]) {
        for (path, expected) in table {
            assert_eq!(told(path), *expected, "{path}");
        }
    }

    #[test]
    fn units_and_slices() {
        check(&[
            ("/", ["-", "-", "-", "-"]),
            ("", ["-", "-", "-", "-"]),
            ("/init.scope", ["init.scope", "-", "-", "-"]),
            ("/system.slice/nginx.service", ["nginx.service", "system.slice", "-", "-"]),
            ("/system.slice/docker.service", ["docker.service", "system.slice", "-", "-"]),
            ("/system.slice/docker.socket", ["docker.socket", "system.slice", "-", "-"]),
            (
                r"/system.slice/system-getty.slice/getty@tty1.service",
                ["getty@tty1.service", "system-getty.slice", "-", "-"],
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                ["session-3.scope", "user-1000.slice", "-", "-"],
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service",
                ["dbus.service", "app.slice", "-", "-"],
            ),
            (
                r"/user.slice/user-0.slice/user@0.service/app.slice/app-a\x2db-dbus\x2d:1.2\x2dx@0.service",
                ["app-a-b-dbus-:1.2-x@0.service", "app.slice", "-", "-"],
            ),
            ("/system.slice/_cgroup.service/sub", ["cgroup.service", "system.slice", "-", "-"]),
            ("/system.slice/.service", ["-", "system.slice", "-", "-"]),
            ("/../other.slice/x.mount", ["x.mount", "other.slice", "-", "-"]),
        ]);
    }

    #[test]
    fn containers() {
        let docker = "docker:0123456789ab";
        let podman = "podman:0123456789ab";
        let scope = "docker-ID.scope";
        check(&[
            ("/system.slice/docker-ID.scope", [scope, "system.slice", docker, "-"]),
            ("/docker/ID", ["-", "-", docker, "-"]),
            ("/docker/ID/init.scope", ["init.scope", "-", docker, "-"]),
            ("/docker/ID/docker/ID", ["-", "-", docker, "-"]),
            ("/docker/buildkit", ["-", "-", "-", "-"]),
            ("/docker/ID/buildkit/y4k", ["-", "-", "buildkit:y4k", "-"]),
            ("/system.slice/docker-0123.scope", ["docker-0123.scope", "system.slice", "-", "-"]),
            (
                "/machine.slice/libpod-ID.scope/container",
                ["libpod-ID.scope", "machine.slice", podman, "-"],
            ),
            ("/libpod_parent/libpod-ID", ["-", "-", podman, "-"]),
            (
                "/machine.slice/libpod-ID.scope/libpod-payload-ID",
                ["libpod-ID.scope", "machine.slice", podman, "-"],
            ),
            (
                "/machine.slice/libpod-conmon-ID.scope",
                ["libpod-conmon-ID.scope", "machine.slice", "-", "-"],
            ),
            ("/garden/6f1c", ["-", "-", "garden:6f1c", "-"]),
            ("/lxc.payload.web-1/init.scope", ["init.scope", "-", "lxc:web-1", "-"]),
            ("/lxc.payload/web", ["-", "-", "lxc:web", "-"]),
            ("/lxc/103/ns", ["-", "-", "lxc:103", "-"]),
            ("/lxc.monitor.web-1", ["-", "-", "-", "-"]),
            ("/lxc/", ["-", "-", "-", "-"]),
            (
                r"/machine.slice/machine-my\x2dbox.scope/payload/system.slice/ssh.service",
                ["ssh.service", "system.slice", "nspawn:my-box", "-"],
            ),
            (
                "/machine.slice/systemd-nspawn@box.service/payload",
                ["systemd-nspawn@box.service", "machine.slice", "nspawn:box", "-"],
            ),
            (
                r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
                ["machine-qemu-1-vm.scope", "machine.slice", "-", "-"],
            ),
        ]);
    }

    #[test]
    fn pods() {
        let containerd = "containerd:0123456789ab";
        let uid = UID.replace('-', "_");
        let slice = format!("kubepods-burstable-pod{uid}.slice");
        let path =
            format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-ID.scope");
        let all = ["cri-containerd-ID.scope", &slice, containerd, "UID"];
        check(&[(&path, all)]);
        let path = format!("/kubepods.slice/kubepods-pod{uid}.slice/crio-ID.scope/container");
        check(&[(
            &path,
            ["crio-ID.scope", &format!("kubepods-pod{uid}.slice"), "crio:0123456789ab", "UID"],
        )]);
        let path = format!("/system.slice/containerd.service/{slice}:cri-containerd:ID");
        check(&[(&path, ["containerd.service", &slice, containerd, "UID"])]);
        let kubernetes = "kubernetes:0123456789ab";
        check(&[
            ("/kubepods/burstable/podUID/ID", ["-", "-", kubernetes, "UID"]),
            ("/kubepods/besteffort/podUID/ID", ["-", "-", kubernetes, "UID"]),
            ("/kubepods/podUID", ["-", "-", "-", "-"]),
            ("/podman/ID", ["-", "-", "-", "-"]),
        ]);
        let statics = format!("/kubepods/pod{}/{ID}", "ab".repeat(16));
        assert_eq!(told(&statics)[3], "ab".repeat(16));
    }

    #[test]
    fn an_id_is_kept_whole_and_a_hostile_name_is_printable() {
        let container = Cgroup::of(format!("/docker/{ID}").as_bytes()).container;
        assert_eq!(container.map(|container| container.id).as_deref(), Some(ID));
        let cgroup = Cgroup::of(b"/lxc/a\x1b[2J\\x1b\\x5c\\x41\\xff\\\xe9/b\x07\\x0a.service");
        assert_eq!(cgroup.unit.as_deref(), Some(r"b\x07\x0a.service"));
        let lxc = cgroup.container.map(|container| container.to_string());
        assert_eq!(lxc.as_deref(), Some(r"lxc:a\x1b[2J\x1b\x5cA\xff\\xe9"));
    }

    #[test]
    fn the_line_of_version_two_is_taken_unless_it_tells_nothing() {
        let table: [(&[u8], Option<&[u8]>); 9] = [
            (b"0::/system.slice/a.service\n", Some(b"/system.slice/a.service")),
            (b"0::/a:b\n", Some(b"/a:b")),
            (b"0::/a.service (deleted)\n", Some(b"/a.service")),
            (b"0::/\n", Some(b"/")),
            (
                b"12:cpu,cpuacct:/x\n1:name=systemd:/y.service\n0::/y.service/z\n",
                Some(b"/y.service/z"),
            ),
            (b"12:cpu:/x\n1:name=systemd:/y:1\n0::/\n", Some(b"/y:1")),
            (b"12:cpu:/x\n1:name=systemd:/y\n", Some(b"/y")),
            (b"12:cpu:/x\n", None),
            (b"", None),
        ];
        for (content, path) in table {
            assert_eq!(parse_proc_cgroup(content), path, "{}", Escaped(content));
        }
    }
}
