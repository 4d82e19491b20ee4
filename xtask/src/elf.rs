//! Reads as much of an ELF header as tells whether a binary is static and which machine it is for.
//!
//! Comes in: the bytes of a file. Goes out: its machine and whether it asks for an interpreter (a dynamic loader).
//! It does not validate the file beyond what it reads; a truncated file gives `None`.

use std::fmt;

/// Machines that this project builds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// `EM_ARM`, 32 bit.
    Arm,
    /// `EM_X86_64`.
    X86_64,
    /// `EM_AARCH64`.
    Aarch64,
}

impl Machine {
    fn from_number(number: u16) -> Option<Self> {
        match number {
            40 => Some(Self::Arm),
            62 => Some(Self::X86_64),
            183 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The machine that a target triple begins with.
    pub fn of_triple(triple: &str) -> Option<Self> {
        match triple.split('-').next()? {
            "armv7" => Some(Self::Arm),
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Arm => "ARM",
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "AArch64",
        })
    }
}

/// What the header of a binary says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The machine, where it is one of ours.
    pub machine: Option<Machine>,
    /// Whether a program header names an interpreter: a static binary has none.
    pub wants_interpreter: bool,
}

const PT_INTERP: u32 = 3;

/// Reads the header of a little-endian ELF file; `None` for anything else.
pub fn read(file: &[u8]) -> Option<Header> {
    const LITTLE_ENDIAN: u8 = 1;
    if file.get(..4)? != b"\x7fELF" || *file.get(5)? != LITTLE_ENDIAN {
        return None;
    }
    let is_64 = *file.get(4)? == 2;
    let machine = Machine::from_number(u16_at(file, 18)?);
    let (table, entry_bytes, entries) = if is_64 {
        (u64_at(file, 32)?, u16_at(file, 54)?, u16_at(file, 56)?)
    } else {
        (u64::from(u32_at(file, 28)?), u16_at(file, 42)?, u16_at(file, 44)?)
    };
    let table = usize::try_from(table).ok()?;
    let mut wants_interpreter = false;
    for index in 0..usize::from(entries) {
        let at = table.checked_add(index.checked_mul(usize::from(entry_bytes))?)?;
        wants_interpreter |= u32_at(file, at)? == PT_INTERP;
    }
    Some(Header { machine, wants_interpreter })
}

fn bytes_at<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    bytes_at(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit header with one program header of the given kind behind it.
    fn binary(machine: u16, kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file[64..68].copy_from_slice(&kind.to_le_bytes());
        file
    }

    #[test]
    fn a_binary_without_an_interpreter_is_static() {
        let header = read(&binary(183, 1)).unwrap();
        assert_eq!(header, Header { machine: Some(Machine::Aarch64), wants_interpreter: false });
    }

    #[test]
    fn a_binary_with_an_interpreter_is_not_static() {
        assert!(read(&binary(62, PT_INTERP)).unwrap().wants_interpreter);
    }

    #[test]
    fn a_truncated_table_is_no_header() {
        assert_eq!(read(&binary(62, 1)[..65]), None);
        assert_eq!(read(b"#!/bin/sh"), None);
    }
}
