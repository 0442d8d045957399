//! Where the kernel keeps what is read, from its BTF.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use ucr_common::memory::LAYOUT;

use super::inet::InetLayout;
use super::likeness;
use super::tcp::TcpLayout;
use crate::kernel::btf::{Btf, BtfError};

/// Offsets and sizes, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::snapshot) struct Layout {
    /// Size of a `struct unix_sock`.
    pub(super) unix_sock: usize,
    /// Which of its bytes tell sockets apart whose options differ.
    pub(super) compared: Vec<Range<usize>>,
    /// Of which lists that is.
    lists: u32,
    pub(super) unix_addr: usize,
    pub(super) unix_peer: usize,
    /// Not on kernels without `CONFIG_AF_UNIX_OOB`.
    pub(super) unix_oob: Option<usize>,
    pub(super) sock_family: usize,
    pub(super) sock_cookie: usize,
    pub(super) sock_state: usize,
    pub(super) sock_type: usize,
    pub(super) sock_error: usize,
    pub(super) sock_shutdown: usize,
    pub(super) sock_backlog: usize,
    pub(super) sock_socket: usize,
    pub(super) sock_peer_pid: usize,
    pub(super) sock_peer_cred: usize,
    /// Head of the receive queue, in a `struct sock`.
    pub(super) queue: usize,
    pub(super) queue_length: usize,
    pub(super) addr_len: usize,
    pub(super) addr_name: usize,
    pub(super) sun_path: usize,
    /// Size of a `struct sk_buff`.
    pub(super) skb: usize,
    pub(super) skb_next: usize,
    pub(super) skb_sk: usize,
    pub(super) skb_cb: usize,
    pub(super) skb_len: usize,
    pub(super) skb_data_len: usize,
    pub(super) skb_head: usize,
    pub(super) skb_data: usize,
    pub(super) skb_end: usize,
    pub(super) cb_pid: usize,
    pub(super) cb_uid: usize,
    pub(super) cb_gid: usize,
    pub(super) cb_fp: usize,
    pub(super) cb_consumed: usize,
    /// Size of a `struct skb_shared_info`.
    pub(super) shared: usize,
    pub(super) shared_count: usize,
    pub(super) shared_fragments: usize,
    pub(super) shared_list: usize,
    pub(super) fragment: usize,
    pub(super) fragment_page: usize,
    pub(super) fragment_len: usize,
    pub(super) fragment_offset: usize,
    /// Size of a `struct page`.
    pub(super) page: usize,
    pub(super) passed_count: usize,
    pub(super) passed_files: usize,
    pub(super) file: usize,
    pub(super) file_private: usize,
    pub(super) file_operations: usize,
    pub(super) socket: usize,
    pub(super) socket_sk: usize,
    pub(super) socket_flags: usize,
    pub(super) socket_file: usize,
    /// Size of a `struct cred`.
    pub(super) cred: usize,
    pub(super) cred_euid: usize,
    pub(super) cred_egid: usize,
    pub(super) cred_groups: usize,
    pub(super) groups_count: usize,
    pub(super) groups_ids: usize,
    /// Size of a `struct pid`.
    pub(super) pid: usize,
    pub(super) pid_level: usize,
    pub(super) pid_numbers: usize,
    /// Size of a `struct upid`.
    pub(super) upid: usize,
    pub(super) upid_number: usize,
    pub(super) upid_namespace: usize,
    pub(super) inet: InetLayout,
    pub(super) tcp: TcpLayout,
}

fn narrow(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl Layout {
    /// As it was kept, by name; `None` if nothing was, or by a ucr that knows other members.
    pub(in crate::snapshot) fn from_bytes(bytes: &[u8; LAYOUT]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let [length, sum] = [head.first_chunk::<4>()?, head.last_chunk::<4>()?];
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let kept = rest.get(..length).filter(|kept| !kept.is_empty())?;
        let is_whole = crc32fast::hash(kept) == u32::from_le_bytes(*sum);
        let known: Option<Self> = serde_json::from_slice(kept).ok().filter(|_| is_whole);
        known.filter(|layout| layout.lists == likeness::lists())
    }

    /// To be kept; `None` if there is no room for it.
    pub(in crate::snapshot) fn to_bytes(&self) -> Option<[u8; LAYOUT]> {
        let kept = serde_json::to_vec(self).ok()?;
        let length = u32::try_from(kept.len()).ok()?;
        let mut bytes = [0; LAYOUT];
        let (head, rest) = bytes.split_first_chunk_mut::<8>()?;
        head.first_chunk_mut::<4>()?.copy_from_slice(&length.to_le_bytes());
        head.last_chunk_mut::<4>()?.copy_from_slice(&crc32fast::hash(&kept).to_le_bytes());
        rest.get_mut(..kept.len())?.copy_from_slice(&kept);
        Some(bytes)
    }

    pub(in crate::snapshot) fn resolve(btf: &Btf) -> Result<Self, BtfError> {
        let at = |container: &str, path: &str| btf.offset(container, path).map(narrow);
        let size = |container: &str| btf.size_of(container).map(narrow);
        // A fragment was a `struct bio_vec` until 6.6.
        let own = btf.size_of("skb_frag").is_ok();
        let fragment = if own { "skb_frag" } else { "bio_vec" };
        let of_fragment = |names: [&str; 3]| {
            let found = names.into_iter().map(|name| at(fragment, name));
            found.reduce(Result::or).unwrap_or(Ok(0))
        };
        let cb = |member| at("unix_skb_parms", member);
        Ok(Self {
            unix_sock: size("unix_sock")?,
            lists: likeness::lists(),
            compared: likeness::compared(btf, size("unix_sock")?),
            unix_addr: at("unix_sock", "addr")?,
            unix_peer: at("unix_sock", "peer")?,
            unix_oob: at("unix_sock", "oob_skb").ok(),
            sock_family: at("sock", "__sk_common.skc_family")?,
            sock_cookie: at("sock", "__sk_common.skc_cookie")?,
            sock_state: at("sock", "__sk_common.skc_state")?,
            sock_type: at("sock", "sk_type")?,
            sock_error: at("sock", "sk_err")?,
            sock_shutdown: at("sock", "sk_shutdown")?,
            sock_backlog: at("sock", "sk_max_ack_backlog")?,
            sock_socket: at("sock", "sk_socket")?,
            sock_peer_pid: at("sock", "sk_peer_pid")?,
            sock_peer_cred: at("sock", "sk_peer_cred")?,
            queue: at("sock", "sk_receive_queue")?,
            queue_length: at("sock", "sk_receive_queue.qlen")?,
            addr_len: at("unix_address", "len")?,
            addr_name: at("unix_address", "name")?,
            sun_path: at("sockaddr_un", "sun_path")?,
            skb: size("sk_buff")?,
            skb_next: at("sk_buff", "next")?,
            skb_sk: at("sk_buff", "sk")?,
            skb_cb: at("sk_buff", "cb")?,
            skb_len: at("sk_buff", "len")?,
            skb_data_len: at("sk_buff", "data_len")?,
            skb_head: at("sk_buff", "head")?,
            skb_data: at("sk_buff", "data")?,
            skb_end: at("sk_buff", "end")?,
            cb_pid: cb("pid")?,
            cb_uid: cb("uid")?,
            cb_gid: cb("gid")?,
            cb_fp: cb("fp")?,
            cb_consumed: cb("consumed")?,
            shared: size("skb_shared_info")?,
            shared_count: at("skb_shared_info", "nr_frags")?,
            shared_fragments: at("skb_shared_info", "frags")?,
            shared_list: at("skb_shared_info", "frag_list")?,
            fragment: size(fragment)?,
            fragment_page: of_fragment(["netmem", "bv_page", "page"])?,
            fragment_len: of_fragment(["len", "bv_len", "size"])?,
            fragment_offset: of_fragment(["offset", "bv_offset", "page_offset"])?,
            page: size("page")?,
            passed_count: at("scm_fp_list", "count")?,
            passed_files: at("scm_fp_list", "fp")?,
            file: size("file")?,
            file_private: at("file", "private_data")?,
            file_operations: at("file", "f_op")?,
            socket: size("socket")?,
            socket_sk: at("socket", "sk")?,
            socket_flags: at("socket", "flags")?,
            socket_file: at("socket", "file")?,
            cred: size("cred")?,
            cred_euid: at("cred", "euid")?,
            cred_egid: at("cred", "egid")?,
            cred_groups: at("cred", "group_info")?,
            groups_count: at("group_info", "ngroups")?,
            groups_ids: at("group_info", "gid")?,
            pid: size("pid")?,
            pid_level: at("pid", "level")?,
            pid_numbers: at("pid", "numbers")?,
            upid: size("upid")?,
            upid_number: at("upid", "nr")?,
            upid_namespace: at("upid", "ns")?,
            inet: InetLayout::resolve(btf)?,
            tcp: TcpLayout::resolve(btf)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_of_it() {
        let btf = Btf::of_kernel().expect("this machine's kernel has BTF");
        let layout = Layout::resolve(&btf).expect("every member");
        assert_eq!(layout.fragment, 16);
        assert!(layout.skb_next < layout.skb && layout.shared_fragments < layout.shared);
    }

    #[test]
    fn what_is_kept_is_itself_again_or_nothing() {
        let btf = Btf::of_kernel().expect("this machine's kernel has BTF");
        let layout = Layout::resolve(&btf).expect("every member");
        let kept = layout.to_bytes().expect("room");
        let of_another = Layout { lists: !layout.lists, ..layout.clone() };
        assert_eq!(Layout::from_bytes(&of_another.to_bytes().expect("room")), None);
        let length = serde_json::to_vec(&layout).expect("text").len();
        assert!(length < LAYOUT / 4 * 3, "{length} bytes: hardly room on another kernel");
        assert_eq!(Layout::from_bytes(&kept), Some(layout));
        assert_eq!(Layout::from_bytes(&[0; LAYOUT]), None);
        for at in [0, 5, 8, 300] {
            let mut damaged = kept;
            damaged[at] ^= 1;
            assert_eq!(Layout::from_bytes(&damaged), None, "byte {at}");
        }
    }
}
