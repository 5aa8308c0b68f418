//! Whose is it: in whose cgroup sockets were made and tasks are, as the kernel's own structures say.
//!
//! Relies on: a socket's cgroup being that of whoever made it, of Unix sockets as of all others, and never changing; a
//! cgroup knowing all those above it (Linux 6.1). What cannot be read is nobody's, and so never the run's.

use interceptor_common::SocketFile;

use crate::{
    admission::Found,
    maps::{CONFIG, PEERS, RUNS, layer_offset},
    task::read,
};

/// The `struct sock` of a `struct socket`.
#[inline(always)]
pub fn sock(socket: u64) -> Option<u64> {
    read(socket, layer_offset(|o| field!(o, socket_sk)))
}

/// Whether a `struct sock` was made in the run's cgroup, or below it.
#[inline(always)]
pub fn made_sock(run: &Found, sock: u64) -> bool {
    read(sock, layer_offset(|o| field!(o, sock_cgroup))).is_some_and(|cgroup| contains(run, cgroup))
}

/// Whether the file that a Unix socket is bound to is one of those that root has left open.
#[inline(always)]
pub fn is_open(sock: u64) -> bool {
    file_of(sock).is_some_and(|file| {
        // SAFETY: only whether there is one is asked.
        unsafe { PEERS.get(&file) }.is_some()
    })
}

#[inline(always)]
fn file_of(sock: u64) -> Option<SocketFile> {
    let dentry: u64 = read(sock, layer_offset(|o| field!(o, unix_dentry)))?;
    let inode: u64 = read(dentry, layer_offset(|o| field!(o, dentry_inode)))?;
    let volume: u64 = read(inode, layer_offset(|o| field!(o, inode_volume)))?;
    Some(SocketFile {
        inode: read(inode, layer_offset(|o| field!(o, inode_number)))?,
        device: read(volume, layer_offset(|o| field!(o, volume_device)))?,
        reserved: 0,
    })
}

/// Whether a `task_struct` is in the run's cgroup, or below it.
#[inline(always)]
pub fn has_task(run: &Found, task: u64) -> bool {
    cgroup_of_task(task).is_some_and(|cgroup| contains(run, cgroup))
}

/// The number of the run's cgroup that a `task_struct` is in, if it is in one that is known.
#[inline(always)]
pub fn run_of_task(task: u64) -> Option<u64> {
    let cgroup = cgroup_of_task(task)?;
    let config = CONFIG.get(0)?;
    for level in &config.run_levels {
        if *level != 0
            && let Some(above) = ancestor(cgroup, *level)
            // SAFETY: only whether there is one is asked.
            && unsafe { RUNS.get(&above) }.is_some()
        {
            return Some(above);
        }
    }
    None
}

/// The `struct cgroup` of a `task_struct`.
#[inline(always)]
fn cgroup_of_task(task: u64) -> Option<u64> {
    let set: u64 = read(task, layer_offset(|o| field!(o, task_cgroups)))?;
    read(set, layer_offset(|o| field!(o, css_set_cgroup)))
}

/// Whether a `struct cgroup` is the run's, or below it.
#[inline(always)]
fn contains(run: &Found, cgroup: u64) -> bool {
    ancestor(cgroup, run.level) == Some(run.cgroup)
}

/// The number of the cgroup at a depth that a `struct cgroup` is, or is below.
#[inline(always)]
fn ancestor(cgroup: u64, depth: u32) -> Option<u64> {
    let own: i32 = read(cgroup, layer_offset(|o| field!(o, cgroup_level)))?;
    if own < depth as i32 {
        return None;
    }
    // A pointer for each depth.
    let place = layer_offset(|o| field!(o, cgroup_ancestors)).wrapping_add(depth.wrapping_mul(8));
    let above: u64 = read(cgroup, place)?;
    let node: u64 = read(above, layer_offset(|o| field!(o, cgroup_kn)))?;
    read(node, layer_offset(|o| field!(o, kernfs_id)))
}
