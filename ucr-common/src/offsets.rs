//! Where the programs find what in kernel structures. User space fills the table in from the
//! running kernel's BTF before the programs are loaded; no number stands in the source.

/// The offset of a field that the running kernel does not have.
pub const ABSENT: u64 = u64::MAX;

/// Where a field is looked up: a structure and a path of members in it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Structure name as in BTF.
    pub container: &'static str,
    /// Members separated by dots; anonymous ones are looked through.
    pub path: &'static str,
    /// What to do on a kernel that lacks it.
    pub need: Need,
}

/// Whether the programs can do without a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it nothing is loaded.
    Required,
    /// Without it the offset is [`ABSENT`] and the programs go another way.
    Optional,
}

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $container:literal $path:literal $need:ident,)*) => {
        /// Byte offsets. Every field is a `u64`, so that one aligned load from read-only data
        /// gives the verifier a constant.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Offsets {
            /// The table before it is filled in.
            pub const EMPTY: Self = Self { $($field: ABSENT,)* };
        }

        /// One entry for each field of [`Offsets`], in its order.
        pub const FIELDS: &[Field] = &[
            $(Field { container: $container, path: $path, need: Need::$need },)*
        ];

        const _: () = assert!(size_of::<Offsets>() == FIELDS.len() * size_of::<u64>());
    };
}

offsets! {
    /// System call number.
    regs_nr: "pt_regs" "orig_ax" Required,
    /// First argument of a system call.
    regs_arg0: "pt_regs" "di" Required,
    /// Second argument.
    regs_arg1: "pt_regs" "si" Required,
    /// Third argument.
    regs_arg2: "pt_regs" "dx" Required,
    /// Fourth argument.
    regs_arg3: "pt_regs" "r10" Required,
    /// What a system call returns; `-ENOSYS` while it runs.
    regs_ax: "pt_regs" "ax" Required,
    /// First argument of a system call by the 32-bit entry.
    regs_compat0: "pt_regs" "bx" Required,
    /// `PF_*`.
    task_flags: "task_struct" "flags" Required,
    /// Thread id.
    task_pid: "task_struct" "pid" Required,
    /// Process id.
    task_tgid: "task_struct" "tgid" Required,
    /// `TS_COMPAT` is a bit of it.
    task_status: "task_struct" "thread_info.status" Required,
    /// First thread of a task's process.
    task_leader: "task_struct" "group_leader" Required,
    /// A task's name.
    task_comm: "task_struct" "comm" Required,
    /// A task's own credentials.
    task_cred: "task_struct" "real_cred" Required,
    /// Real user id.
    cred_uid: "cred" "uid.val" Required,
    /// Descriptor table of a task.
    task_files: "task_struct" "files" Required,
    /// Working and root directory of a task.
    task_fs: "task_struct" "fs" Required,
    /// State shared by the threads of a process.
    task_signal: "task_struct" "signal" Required,
    /// Threads that have not begun to exit.
    signal_live: "signal_struct" "live.counter" Required,
    /// Threads that are not reaped.
    signal_nr_threads: "signal_struct" "nr_threads" Required,
    /// Limits of a process; `RLIMIT_NOFILE` is number 7, and each takes two words.
    signal_rlim: "signal_struct" "rlim" Required,
    /// Tasks that share a descriptor table.
    files_count: "files_struct" "count.counter" Required,
    /// The current table.
    files_fdt: "files_struct" "fdt" Required,
    /// Its size.
    fdt_max_fds: "fdtable" "max_fds" Required,
    /// Its array of files.
    fdt_fd: "fdtable" "fd" Required,
    /// Its bitmap of descriptors in use.
    fdt_open_fds: "fdtable" "open_fds" Required,
    /// Its bitmap of close-on-exec descriptors.
    fdt_close_on_exec: "fdtable" "close_on_exec" Required,
    /// The socket behind a file.
    file_private_data: "file" "private_data" Required,
    /// `O_*`.
    file_flags: "file" "f_flags" Required,
    /// Who is told by a signal: inside of the file until 6.12, then behind a pointer.
    file_owner: "file" "f_owner" Optional,
    /// The task that is told, where it stands in the file.
    file_owner_pid: "file" "f_owner.pid" Optional,
    /// The signal, where it stands in the file.
    file_owner_signal: "file" "f_owner.signum" Optional,
    /// The task that is told.
    owner_pid: "fown_struct" "pid" Optional,
    /// The signal.
    owner_signal: "fown_struct" "signum" Optional,
    /// References to a file until 6.11: one is 1.
    file_count: "file" "f_count.counter" Optional,
    /// References to a file since 6.12: one is 0 (`FILE_REF_ONEREF`).
    file_ref: "file" "f_ref.refcnt.counter" Optional,
    /// A file's inode.
    file_inode: "file" "f_inode" Required,
    /// File type and permissions.
    inode_mode: "inode" "i_mode" Required,
    /// Inode number.
    inode_ino: "inode" "i_ino" Required,
    /// An inode's file system.
    inode_sb: "inode" "i_sb" Required,
    /// Which file system it is.
    sb_magic: "super_block" "s_magic" Required,
    /// Type of a socket.
    socket_type: "socket" "type" Required,
    /// Its file.
    socket_file: "socket" "file" Required,
    /// The sock behind a socket.
    socket_sk: "socket" "sk" Required,
    /// The socket in what sockfs allocates as a whole.
    alloc_socket: "socket_alloc" "socket" Required,
    /// The inode number in the same.
    alloc_ino: "socket_alloc" "vfs_inode.i_ino" Required,
    /// The socket of a sock; null until accepted and after the last close.
    sk_socket: "sock" "sk_socket" Required,
    /// Cookie.
    sk_cookie: "sock" "__sk_common.skc_cookie" Required,
    /// Family.
    sk_family: "sock" "__sk_common.skc_family" Required,
    /// State.
    sk_state: "sock" "__sk_common.skc_state" Required,
    /// Network namespace.
    sk_net: "sock" "__sk_common.skc_net.net" Required,
    /// `SOCK_DEAD` is a bit of it.
    sk_flags: "sock" "__sk_common.skc_flags" Required,
    /// Type.
    sk_type: "sock" "sk_type" Required,
    /// Protocol.
    sk_protocol: "sock" "sk_protocol" Required,
    /// Interface that a sock is bound to.
    sk_interface: "sock" "__sk_common.skc_bound_dev_if" Required,
    /// Own IPv4 address.
    sk_v4_local: "sock" "__sk_common.skc_rcv_saddr" Required,
    /// The other end's.
    sk_v4_remote: "sock" "__sk_common.skc_daddr" Required,
    /// Own IPv6 address.
    sk_v6_local: "sock" "__sk_common.skc_v6_rcv_saddr" Optional,
    /// The other end's.
    sk_v6_remote: "sock" "__sk_common.skc_v6_daddr" Optional,
    /// The other end's port, in network byte order.
    sk_remote_port: "sock" "__sk_common.skc_dport" Required,
    /// Own port, in network byte order, as the kernel shows it.
    inet_port: "inet_sock" "inet_sport" Optional,
    /// Directions shut down.
    sk_shutdown: "sock" "sk_shutdown" Required,
    /// Backlog.
    sk_backlog: "sock" "sk_max_ack_backlog" Required,
    /// Queue of a listener: its embryos, each behind an skb.
    sk_receive_queue: "sock" "sk_receive_queue" Required,
    /// How many skbs are in a queue.
    queue_len: "sk_buff_head" "qlen" Required,
    /// Memory that a sock is charged for, and 1.
    sk_wmem_alloc: "sock" "sk_wmem_alloc.refs.counter" Required,
    /// User who made a sock.
    sk_uid: "sock" "sk_uid.val" Optional,
    /// Process behind the peer credentials.
    sk_peer_pid: "sock" "sk_peer_pid" Optional,
    /// Its numbers, one for each pid namespace from the initial one on.
    pid_numbers: "pid" "numbers" Optional,
    /// cgroup of who made a sock.
    sk_cgroup: "sock" "sk_cgrp_data.cgroup" Optional,
    /// A cgroup's directory.
    cgroup_kn: "cgroup" "kn" Optional,
    /// The number of a directory.
    kn_id: "kernfs_node" "id" Optional,
    /// Length of a message.
    skb_len: "sk_buff" "len" Required,
    /// What a family keeps with a message.
    skb_cb: "sk_buff" "cb" Required,
    /// How much of a stream's message has been received.
    cb_consumed: "unix_skb_parms" "consumed" Required,
    /// Next in a queue, whose head comes round again at the end.
    skb_next: "sk_buff" "next" Required,
    /// The sock that an skb is charged to; in a listener's queue the embryo.
    skb_sk: "sk_buff" "sk" Required,
    /// Inode number of a network namespace.
    net_inum: "net" "ns.inum" Required,
    /// Peer of a unix socket.
    unix_peer: "unix_sock" "peer" Required,
    /// Name of a unix socket.
    unix_addr: "unix_sock" "addr" Required,
    /// Listener of an embryo.
    unix_listener: "unix_sock" "listener" Optional,
    /// Length of a name, with the two bytes of the family.
    addr_len: "unix_address" "len" Required,
    /// The name as a `struct sockaddr_un`.
    addr_name: "unix_address" "name" Required,
    /// Where `sun_path` begins in it.
    sun_path: "sockaddr_un" "sun_path" Required,
    /// Length of the address that a message goes to; 0: to the peer.
    msg_namelen: "msghdr" "msg_namelen" Required,
    /// How many files a message carries.
    fp_count: "scm_fp_list" "count" Required,
    /// The files.
    fp_files: "scm_fp_list" "fp" Required,
    /// The files of a message that is being put together.
    scm_fp: "scm_cookie" "fp" Required,
    /// Working directory.
    fs_pwd_dentry: "fs_struct" "pwd.dentry" Required,
    /// Its mount.
    fs_pwd_mnt: "fs_struct" "pwd.mnt" Required,
    /// Root directory.
    fs_root_dentry: "fs_struct" "root.dentry" Required,
    /// Its mount.
    fs_root_mnt: "fs_struct" "root.mnt" Required,
    /// Top of a mounted tree.
    vfsmount_root: "vfsmount" "mnt_root" Required,
    /// The public half of a mount.
    mount_mnt: "mount" "mnt" Required,
    /// The mount it is mounted on.
    mount_parent: "mount" "mnt_parent" Required,
    /// Where on it.
    mount_mountpoint: "mount" "mnt_mountpoint" Required,
    /// Directory above.
    dentry_parent: "dentry" "d_parent" Required,
    /// Length of its name.
    dentry_name_len: "dentry" "d_name.len" Required,
    /// Its name.
    dentry_name: "dentry" "d_name.name" Required,
}
