//! connect(2) by way of io_uring, by hand: one entry, submitted and waited for.

use std::{
    io,
    mem::size_of_val,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use super::actor::{sockaddr_v4, socket};

/// `struct io_uring_params`, of which only the ring offsets are read.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    head: [u32; 10],
    submission: [u32; 8],
    submission_address: u64,
    completion: [u32; 8],
    completion_address: u64,
}

const CONNECT: u8 = 16;

/// What the ring's completion says of a connection.
pub fn connect(to: &SocketAddr) -> io::Result<String> {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = sockaddr_v4(to, libc::AF_INET);
    let mut parameters = Parameters::default();
    // SAFETY: system calls whose pointers live through them; the mappings are as long as the kernel says.
    let result = unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 2, &raw mut parameters);
        if ring < 0 {
            return Err(io::Error::last_os_error());
        }
        let ring = OwnedFd::from_raw_fd(ring as i32);
        let map = |offset: i64| {
            libc::mmap(
                ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            )
            .cast::<u8>()
        };
        let (submissions, completions, entries) = (map(0), map(0x800_0000), map(0x1000_0000));
        entries.write(CONNECT);
        entries.add(4).cast::<i32>().write(fd.as_raw_fd());
        entries.add(8).cast::<u64>().write(size_of_val(&address) as u64);
        entries.add(16).cast::<u64>().write((&raw const address) as u64);
        // The array of entry numbers, then the tail.
        submissions.add(parameters.submission[6] as usize).cast::<u32>().write(0);
        submissions.add(parameters.submission[1] as usize).cast::<u32>().write_volatile(1);
        if libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, 1, ptr::null::<u8>(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        completions.add(parameters.completion[5] as usize + 8).cast::<i32>().read_volatile()
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok("connected".into()) }
}
