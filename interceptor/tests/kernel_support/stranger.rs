//! Programs of somebody else on the hooks that ours are on, written by hand and attached as others attach theirs.

use std::{
    fs::File,
    io,
    net::SocketAddrV4,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use super::actor::check;

/// `BPF_CGROUP_INET_EGRESS`
pub const EGRESS: u32 = 1;
/// `BPF_CGROUP_INET4_CONNECT`
pub const CONNECT4: u32 = 10;
/// `BPF_CGROUP_UDP4_SENDMSG`
pub const SENDMSG4: u32 = 14;

/// Beside others, as most do.
pub const MULTI: u32 = 2;
/// In the place of what stands above, unless something below takes its own.
pub const OVERRIDE: u32 = 1;
/// Alone, as systemd filters the packets of a service.
pub const ALONE: u32 = 0;

/// The names of the programs, by which they are found again.
pub const NAME: &str = "stranger";

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

/// `r(to) = value`, as 32 bits
const fn set(to: u8, value: i32) -> Instruction {
    Instruction { code: 0xb4, registers: to, offset: 0, value }
}

/// `r(to) = the u32 at offset from r1`
const fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: to | 1 << 4, offset, value: 0 }
}

/// `the u32 at offset from r1 = r(from)`
const fn store(from: u8, offset: i16) -> Instruction {
    Instruction { code: 0x63, registers: 1 | from << 4, offset, value: 0 }
}

/// `goes on after so many more unless r2 is r3`
const fn unless_equal(more: i16) -> Instruction {
    Instruction { code: 0x5d, registers: 2 | 3 << 4, offset: more, value: 0 }
}

const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, value: 0 };

/// Where `struct bpf_sock_addr` has them.
const ADDRESS: i16 = 4;
const PORT: i16 = 24;

/// A program that is attached, until it is dropped.
pub struct Stranger {
    program: OwnedFd,
    cgroup: File,
    hook: u32,
}

impl Stranger {
    /// One that sends what goes to `from` to `to` instead, and touches nothing else.
    pub fn that_redirects(
        hook: u32,
        from: SocketAddrV4,
        to: SocketAddrV4,
        cgroup: &Path,
        flags: u32,
    ) -> io::Result<Self> {
        let address = |of: &SocketAddrV4| i32::from_ne_bytes(of.ip().octets());
        let port = |of: &SocketAddrV4| i32::from(of.port().to_be());
        let program = [
            load(2, ADDRESS),
            set(3, address(&from)),
            unless_equal(7),
            load(2, PORT),
            set(3, port(&from)),
            unless_equal(4),
            set(2, address(&to)),
            store(2, ADDRESS),
            set(2, port(&to)),
            store(2, PORT),
            set(0, 1),
            EXIT,
        ];
        // BPF_PROG_TYPE_CGROUP_SOCK_ADDR
        Self::attach(18, hook, &program, cgroup, flags)
    }

    /// One that lets every packet out.
    pub fn that_lets_out(cgroup: &Path, flags: u32) -> io::Result<Self> {
        // BPF_PROG_TYPE_CGROUP_SKB
        Self::attach(8, EGRESS, &[set(0, 1), EXIT], cgroup, flags)
    }

    fn attach(kind: u32, hook: u32, program: &[Instruction], cgroup: &Path, flags: u32) -> io::Result<Self> {
        let cgroup = File::open(cgroup)?;
        let program = loaded(kind, hook, program)?;
        let mut words = attachment(&cgroup, &program, hook);
        words[3] = flags;
        bpf(8, &words)?;
        Ok(Self { program, cgroup, hook })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Where somebody has taken it away already, or the cgroup, there is nothing to do.
        let _ = bpf(9, &attachment(&self.cgroup, &self.program, self.hook));
    }
}

/// What `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` take.
fn attachment(cgroup: &File, program: &OwnedFd, hook: u32) -> [u32; 4] {
    [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, hook, 0]
}

fn loaded(kind: u32, hook: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut words = [0_u32; 18];
    let pointer = |words: &mut [u32; 18], at: usize, to: u64| {
        words[at] = to as u32;
        words[at + 1] = (to >> 32) as u32;
    };
    words[0] = kind;
    words[1] = program.len() as u32;
    pointer(&mut words, 2, program.as_ptr() as u64);
    pointer(&mut words, 4, c"GPL".as_ptr() as u64);
    for (at, letter) in NAME.bytes().enumerate() {
        words[12 + at / 4] |= u32::from(letter) << (8 * (at % 4));
    }
    words[17] = hook;
    let fd = bpf(5, &words)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf(command: i32, words: &[u32]) -> io::Result<isize> {
    // SAFETY: the attributes live through the call, as does what they point to, and are as long as said.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, words.as_ptr(), size_of_val(words)) as isize })
}
