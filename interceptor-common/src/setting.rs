//! What user space tells the kernel side.

/// At how many depths of the cgroup tree there can be runs at once: that of the slice's children, and those of cgroups that
/// are captured where they are. Each costs every connect of the host a look-up.
pub const RUN_LEVELS: usize = 5;

/// One installation's settings.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// [`crate::ABI_VERSION`] of whoever wrote this.
    pub abi: u32,
    /// [`Config::ENFORCE`] or [`Config::DENY_ALL`]; anything else is read as the latter.
    pub mode: u32,
    /// How old the heartbeat may be, in milliseconds.
    pub heartbeat_limit_ms: u32,
    /// The depths below the cgroup2 root at which there may be runs, in any order; 0 is a place that is free.
    pub run_levels: [u32; RUN_LEVELS],
}

impl Config {
    /// Captured connections are redirected.
    pub const ENFORCE: u32 = 1;
    /// Every captured connection is refused.
    pub const DENY_ALL: u32 = 2;
}

const _: () = assert!(size_of::<Config>() == 32);

/// One run's settings.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunConfig {
    /// The run.
    pub run: u64,
    /// The cookie of the network namespace that the run is in; 0 when it may be in any.
    pub netns_cookie: u64,
    /// The run's own global IPv6 address, all zero when it has none.
    pub own_v6: [u32; 4],
    /// The run's own global IPv4 address, 0 when it has none.
    pub own_v4: u32,
    /// The port of the run's TCP listener, on 127.0.0.1 and on ::1.
    pub tcp_port: u32,
    /// The port of the run's resolver, on 127.0.0.1 and on ::1.
    pub dns_port: u32,
    /// Bits; see the constants.
    pub flags: u32,
    /// Until when the run is let go of, in nanoseconds since boot, time asleep included; 0 when it is not. Past it the run is
    /// captured as ever, whoever is there to say so.
    pub released_until: u64,
}

impl RunConfig {
    /// The run has a network namespace of its own: its own listeners are left alone.
    pub const OWN_NETNS: u32 = 1;
    /// Connections of the run from before its capture may go on: they are among the kept ones.
    pub const KEEPS: u32 = 2;
}

const _: () = assert!(size_of::<RunConfig>() == 56);

/// A connection from before its run's capture that may go on for a while.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The run.
    pub run: u64,
    /// Until when, in nanoseconds since boot, time asleep included. Past it nothing of the connection's is sent any more.
    pub until: u64,
}

const _: () = assert!(size_of::<Kept>() == 16);

/// Where fields are in the running kernel's structures, in bytes, read from its BTF.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.start_boottime`
    pub task_start_boottime: u32,
    /// `task_struct.real_parent`
    pub task_real_parent: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `linux_binprm.filename`
    pub binprm_filename: u32,
    /// Not used.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Offsets>() == 48);

/// The same, of what LSM programs look at besides. A kernel whose BTF lacks any of these has no such layer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerOffsets {
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.ancestors`
    pub cgroup_ancestors: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kernfs_id: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_cgroup: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.private_data`
    pub file_private: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `qstr.name`
    pub qstr_name: u32,
    /// `linux_binprm.cred`
    pub binprm_cred: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.euid`
    pub cred_euid: u32,
    /// `cred.egid`
    pub cred_egid: u32,
    /// `cred.cap_permitted`
    pub cred_permitted: u32,
    /// `unix_sock.path.dentry`
    pub unix_dentry: u32,
    /// `dentry.d_inode`
    pub dentry_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_volume: u32,
    /// `super_block.s_dev`
    pub volume_device: u32,
}

const _: () = assert!(size_of::<LayerOffsets>() == 88);

/// The file that a Unix socket is bound to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketFile {
    /// Its inode's number.
    pub inode: u64,
    /// The device of its file system, as the kernel has it: the major number from the 20th bit on, the minor below.
    pub device: u32,
    /// Not used.
    pub reserved: u32,
}

const _: () = assert!(size_of::<SocketFile>() == 16);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (sizes are asserted above), any bit pattern is a value.
unsafe impl aya::Pod for Config {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for RunConfig {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Offsets {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for LayerOffsets {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for SocketFile {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Kept {}
