//! Reads, from the kernel's own type information, where the fields are that our programs look at.
//!
//! Rust's eBPF target has no relocation of field accesses, so the offsets are handed to the programs as a global.
//! Every read of the file is checked; a structure that has changed its shape is an error, not a guess.

use std::{collections::HashMap, fs};

use interceptor_common::{LayerOffsets, Offsets};

use super::KernelError;

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Anonymous members are followed this deep.
const DEPTH: u32 = 8;

/// The offsets of the running kernel.
pub(super) fn offsets() -> Result<Offsets, KernelError> {
    with_fields(|field| {
        Ok(Offsets {
            task_pid: field("task_struct", "pid")?,
            task_tgid: field("task_struct", "tgid")?,
            task_start_boottime: field("task_struct", "start_boottime")?,
            task_real_parent: field("task_struct", "real_parent")?,
            task_group_leader: field("task_struct", "group_leader")?,
            task_mm: field("task_struct", "mm")?,
            task_signal: field("task_struct", "signal")?,
            signal_live: field("signal_struct", "live")?,
            mm_arg_start: field("mm_struct", "arg_start")?,
            mm_arg_end: field("mm_struct", "arg_end")?,
            binprm_filename: field("linux_binprm", "filename")?,
            reserved: 0,
        })
    })
}

/// Those that only LSM programs look at.
pub(super) fn layer_offsets() -> Result<LayerOffsets, KernelError> {
    with_fields(|field| {
        Ok(LayerOffsets {
            socket_sk: field("socket", "sk")?,
            sock_cgroup: field("sock", "sk_cgrp_data")? + field("sock_cgroup_data", "cgroup")?,
            cgroup_level: field("cgroup", "level")?,
            cgroup_ancestors: field("cgroup", "ancestors")?,
            cgroup_kn: field("cgroup", "kn")?,
            kernfs_id: field("kernfs_node", "id")?,
            task_cgroups: field("task_struct", "cgroups")?,
            css_set_cgroup: field("css_set", "dfl_cgrp")?,
            file_inode: field("file", "f_inode")?,
            file_private: field("file", "private_data")?,
            inode_mode: field("inode", "i_mode")?,
            qstr_name: field("qstr", "name")?,
            binprm_cred: field("linux_binprm", "cred")?,
            task_cred: field("task_struct", "cred")?,
            cred_euid: field("cred", "euid")?,
            cred_egid: field("cred", "egid")?,
            cred_permitted: field("cred", "cap_permitted")?,
            unix_dentry: field("unix_sock", "path")? + field("path", "dentry")?,
            dentry_inode: field("dentry", "d_inode")?,
            inode_number: field("inode", "i_ino")?,
            inode_volume: field("inode", "i_sb")?,
            volume_device: field("super_block", "s_dev")?,
        })
    })
}

/// Where a field of a structure is.
type Field<'a> = &'a dyn Fn(&str, &str) -> Result<u32, KernelError>;

fn with_fields<T>(read: impl FnOnce(Field<'_>) -> Result<T, KernelError>) -> Result<T, KernelError> {
    let bytes = fs::read(PATH).map_err(KernelError::place("read", PATH))?;
    let types = Types::parse(&bytes).ok_or_else(|| KernelError::Btf("cannot be understood".into()))?;
    read(&|record, name| {
        types
            .offset(record, name)
            .ok_or_else(|| KernelError::Btf(format!("has no plain field {record}.{name}")))
    })
}

/// Where a structure's or union's members are in the file.
#[derive(Clone, Copy)]
struct Record {
    members: usize,
    count: usize,
    packed_bits: bool,
}

struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    by_id: HashMap<u32, Record>,
    by_name: HashMap<&'a str, u32>,
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let header = usize::try_from(word(bytes, 4)?).ok()?;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header.checked_add(usize::try_from(word(bytes, at)?).ok()?)?;
            let length = usize::try_from(word(bytes, at + 4)?).ok()?;
            bytes.get(start..start.checked_add(length)?)
        };
        let mut parsed = Self {
            types: section(8)?,
            strings: section(16)?,
            by_id: HashMap::new(),
            by_name: HashMap::new(),
        };
        parsed.walk()?;
        Some(parsed)
    }

    fn walk(&mut self) -> Option<()> {
        let (mut at, mut id) = (0, 1_u32);
        while at < self.types.len() {
            let name = word(self.types, at)?;
            let info = word(self.types, at + 4)?;
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let members = at + 12;
            at = members.checked_add(tail(kind, count)?)?;
            if kind == STRUCT || kind == UNION {
                self.by_id.insert(id, Record { members, count, packed_bits: info >> 31 == 1 });
                if kind == STRUCT && name != 0 {
                    self.by_name.entry(text(self.strings, name)?).or_insert(id);
                }
            }
            id = id.checked_add(1)?;
        }
        Some(())
    }

    /// The offset in bytes of a field, in anonymous members too.
    fn offset(&self, record: &str, field: &str) -> Option<u32> {
        self.bits(*self.by_name.get(record)?, field, DEPTH).filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
    }

    fn bits(&self, id: u32, field: &str, depth: u32) -> Option<u32> {
        let record = self.by_id.get(&id)?;
        for index in 0..record.count {
            let at = record.members + index * 12;
            let (name, kind) = (word(self.types, at)?, word(self.types, at + 4)?);
            let raw = word(self.types, at + 8)?;
            let (offset, width) = if record.packed_bits { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            if name == 0 && depth > 0 {
                if let Some(inner) = self.bits(kind, field, depth - 1) {
                    return offset.checked_add(inner);
                }
            } else if text(self.strings, name)? == field {
                return (width == 0).then_some(offset);
            }
        }
        None
    }
}

/// How many bytes follow a type's three words.
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // integers, variables, declaration tags
        1 | 14 | 17 => 4,
        // arrays
        3 => 12,
        // structures, unions, sections, 64-bit enumerations
        4 | 5 | 15 | 19 => count * 12,
        // enumerations, prototypes
        6 | 13 => count * 8,
        // pointers, forwards, typedefs, qualifiers, functions, floats, type tags
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

fn text(strings: &[u8], at: u32) -> Option<&str> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_fields_are_found_and_garbage_is_refused() {
        let found = offsets().expect("this kernel has BTF");
        assert!(found.task_tgid == found.task_pid + 4, "pid and tgid are neighbours: {found:?}");
        assert!(found.mm_arg_end == found.mm_arg_start + 8, "{found:?}");
        let found = layer_offsets().expect("and all that the layer looks at");
        assert!(
            found.cred_egid > found.cred_euid && found.cgroup_ancestors > found.cgroup_level,
            "{found:?}"
        );
        assert!(
            Types::parse(b"").is_none()
                && Types::parse(&[0x9f, 0xeb, 1, 0, 0xff, 0xff, 0xff, 0xff]).is_none()
        );
        let bytes = fs::read(PATH).expect("BTF");
        assert!(Types::parse(&bytes[..bytes.len() / 2]).is_none(), "a cut file");
    }
}
