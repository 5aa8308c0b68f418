//! As much of nftables as the belt needs, spoken to the kernel itself: no tool needs to be installed, and none is run as
//! root (docs/decisions/0026-the-belt-speaks-netlink.md).
//!
//! Promise: a transaction is in force as a whole or not at all, and an answer to anything but the question is an error.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
            socket, sockopt,
        },
        time::TimeVal,
    },
};

/// `NFPROTO_INET`
const INET: u8 = 1;
const HEADER: usize = 16;
/// `struct nfgenmsg`
const FAMILY_HEADER: usize = 4;
const ATTRIBUTE: usize = 4;
const NESTED: u16 = 0x8000;
/// The longest answer that the kernel puts into one datagram.
const ANSWER: usize = 32 * 1024;

/// What is asked for; numbers of `linux/netfilter/nf_tables.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Verb {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    NewElement = 12,
    DeleteElement = 14,
    NewObject = 18,
    /// Reads a counter and sets it to zero in one.
    TakeObject = 21,
}

/// Attributes, in the order in which they were added. What is too long for one the kernel refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn long(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, value: &Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }
}

/// The attribute of a kind, among those that the kernel gave.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut left = attributes;
    loop {
        let length = usize::from(half(left, 0)?);
        let value = left.get(ATTRIBUTE..length)?;
        if half(left, 2)? & !NESTED == kind {
            return Some(value);
        }
        left = left.get(length.next_multiple_of(4)..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A line to the nftables of the network namespace that it was opened in, whoever holds it.
#[derive(Debug)]
pub(super) struct Nftables {
    socket: OwnedFd,
    sequence: u32,
    answer: Box<[u8]>,
}

impl Nftables {
    /// Opens it in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        Self::over(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?)
    }

    /// Speaks over a socket for `NETLINK_NETFILTER` that was opened in the namespace.
    pub(super) fn over(socket: OwnedFd) -> io::Result<Self> {
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
        Ok(Self { socket, sequence: 0, answer: vec![0; ANSWER].into() })
    }

    /// Has the kernel do all of it, or nothing.
    pub(super) fn commit(&mut self, messages: &[(Verb, Attributes)]) -> io::Result<()> {
        const BEGIN: u16 = 16;
        const END: u16 = 17;
        const CREATE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
        let request = libc::NLM_F_REQUEST as u16;
        // The edges of a batch say which subsystem it is for.
        let edge = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
        let mut batch = Vec::new();
        let first = self.put(&mut batch, BEGIN, request, edge, &Attributes::default());
        let mut last = first;
        let mut left = messages.len();
        for (verb, attributes) in messages {
            left -= 1;
            // Errors are told unasked.
            let flags = if left == 0 { CREATE | libc::NLM_F_ACK as u16 } else { CREATE };
            last = self.put(&mut batch, kind(*verb), flags, [INET, 0, 0, 0], attributes);
        }
        self.put(&mut batch, END, request, edge, &Attributes::default());
        self.send(&batch)?;
        loop {
            for answer in self.receive()? {
                match answer {
                    // An error of the whole is told of its beginning.
                    Answer::Done { sequence, code } if (first..=last).contains(&sequence) => match code {
                        0 if sequence == last => return Ok(()),
                        0 => {}
                        code => return Err(io::Error::from_raw_os_error(code)),
                    },
                    _ => {}
                }
            }
        }
    }

    /// What the kernel has under that name.
    pub(super) fn get(&mut self, verb: Verb, attributes: &Attributes) -> io::Result<Vec<u8>> {
        let sequence = self.ask(verb, 0, attributes)?;
        loop {
            for answer in self.receive()? {
                match answer {
                    Answer::Found { sequence: own, attributes } if own == sequence => return Ok(attributes),
                    Answer::Done { sequence: own, code } if own == sequence => {
                        return Err(match code {
                            0 => io::Error::other("nftables answered with nothing"),
                            code => io::Error::from_raw_os_error(code),
                        });
                    }
                    _ => {}
                }
            }
        }
    }

    /// All that the kernel has of a kind.
    pub(super) fn list(&mut self, verb: Verb, attributes: &Attributes) -> io::Result<Vec<Vec<u8>>> {
        let sequence = self.ask(verb, libc::NLM_F_DUMP, attributes)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer {
                    Answer::Found { sequence: own, attributes } if own == sequence => found.push(attributes),
                    Answer::Done { sequence: own, code } if own == sequence => match code {
                        0 => return Ok(found),
                        code => return Err(io::Error::from_raw_os_error(code)),
                    },
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, verb: Verb, flags: i32, attributes: &Attributes) -> io::Result<u32> {
        let mut message = Vec::new();
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let sequence = self.put(&mut message, kind(verb), flags, [INET, 0, 0, 0], attributes);
        self.send(&message)?;
        Ok(sequence)
    }

    fn put(
        &mut self,
        to: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        family: [u8; FAMILY_HEADER],
        attributes: &Attributes,
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + FAMILY_HEADER + attributes.0.len();
        to.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        to.extend(kind.to_ne_bytes());
        to.extend(flags.to_ne_bytes());
        to.extend(self.sequence.to_ne_bytes());
        to.extend(0_u32.to_ne_bytes());
        to.extend(family);
        to.extend(&attributes.0);
        self.sequence
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_raw_fd(), message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<Answer>> {
        let length = recv(self.socket.as_raw_fd(), &mut self.answer, MsgFlags::empty())?;
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidData, "an answer of nftables that cannot be read");
        read(self.answer.get(..length).unwrap_or_default()).ok_or_else(malformed)
    }
}

fn kind(verb: Verb) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | u16::from(verb as u8)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Something that was asked for.
    Found { sequence: u32, attributes: Vec<u8> },
    /// The end of an answer: an errno, 0 where all is well.
    Done { sequence: u32, code: i32 },
}

/// Reads a datagram of messages.
fn read(bytes: &[u8]) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let length = usize::try_from(word(left, 0)?).ok()?;
        let (kind, flags, sequence) = (half(left, 4)?, half(left, 6)?, word(left, 8)?);
        let body = left.get(HEADER..length)?;
        let is_torn = flags & libc::NLM_F_DUMP_INTR as u16 != 0;
        answers.push(match i32::from(kind) {
            // Somebody changed what was being listed.
            _ if is_torn => Answer::Done { sequence, code: libc::EINTR },
            libc::NLMSG_ERROR => Answer::Done { sequence, code: word(body, 0)?.cast_signed().checked_neg()? },
            libc::NLMSG_DONE => Answer::Done { sequence, code: 0 },
            _ => Answer::Found { sequence, attributes: body.get(FAMILY_HEADER..)?.to_vec() },
        });
        left = left.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_went() {
        let inner = Attributes::default().number(2, 7);
        let all = Attributes::default().text(1, "name").nested(4, &inner).bytes(5, &[9]);
        assert_eq!(find(&all.0, 1), Some(&b"name\0"[..]));
        assert_eq!(find(find(&all.0, 4).expect("nested"), 2), Some(&7_u32.to_be_bytes()[..]));
        assert_eq!(find(&all.0, 5), Some(&[9_u8][..]));
        assert_eq!(find(&all.0, 3), None);
        assert_eq!(find(&[4, 0, 3], 3), None, "cut off");
        assert_eq!(find(&[0; 8], 3), None, "without a length there is no next one");
    }

    #[test]
    fn what_cannot_be_read_is_no_answer() {
        assert_eq!(read(&[]), Some(Vec::new()));
        assert_eq!(read(&[20, 0, 0, 0]), None);
        assert_eq!(read(&[0; 16]), None, "a message shorter than its own header");
        let mut error = [20_u32.to_ne_bytes(), 2_u32.to_ne_bytes(), 5_u32.to_ne_bytes(), [0; 4]].concat();
        error.extend((-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&error), Some(vec![Answer::Done { sequence: 5, code: libc::ENOENT }]));
    }
}
