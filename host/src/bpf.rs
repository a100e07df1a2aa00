//! `bpf`: programs of classic BPF.
//!
//! ```text
//!   4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0     how many, then CODE JT JF K of each
//!
//!   ldb [9]   jeq #6, 0, 1   ret #1   ret #0
//! ```
//!
//! A program is checked when it is read, by the kernel's own laws: every code is known, jumps go forward and
//! stay inside, memory is written before it is read, the last one returns. So running one takes no more steps
//! than it has instructions, and cannot fail. A read beyond the packet ends it with 0, which is "no".
//!
//! Some things that a program can ask for are no part of a packet here (the frame's header, the processor, …):
//! then the answer is not known.

use hipac_classifier::Packet;

/// Instructions that `xt_bpf` takes.
const INSTRUCTIONS_MAX: usize = 64;
/// Words of memory.
const MEMORY_WORDS: usize = 16;

/// Offsets from here on are no offsets into the packet.
const ANCILLARY: u32 = 0xffff_f000;
/// The IP header, by another name.
const NETWORK: u32 = 0xfff0_0000;
/// The frame's header.
const LINK: u32 = 0xffe0_0000;

/// A program that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

// Classes.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
// Where a load takes its value from.
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;
// How much it takes.
const HALF: u16 = 0x08;
const BYTE: u16 = 0x10;
/// The second operand is X and not K.
const X: u16 = 0x08;

impl Program {
    /// Reads and checks a program as `--bytecode` writes it.
    ///
    /// # Errors
    /// It is no program, or the kernel would refuse it.
    pub fn parse(text: &str) -> Result<Program, String> {
        let mut parts = text.split(',');
        let count: usize =
            parts.next().and_then(|n| n.trim().parse().ok()).ok_or("it does not say its length")?;
        if count == 0 || count > INSTRUCTIONS_MAX {
            return Err(format!("a program has 1 to {INSTRUCTIONS_MAX} instructions, not {count}"));
        }
        let mut instructions = Vec::with_capacity(count);
        for (i, part) in parts.by_ref().take(count).enumerate() {
            let instruction = instruction(part);
            instructions.push(instruction.ok_or_else(|| format!("instruction {i} `{part}` is none"))?);
        }
        if instructions.len() != count || parts.next().is_some_and(|rest| !rest.trim().is_empty()) {
            return Err(format!("it does not have {count} instructions"));
        }
        let program = Program { instructions };
        program.check()?;
        Ok(program)
    }

    /// The kernel's laws.
    fn check(&self) -> Result<(), String> {
        let count = self.instructions.len();
        // Memory that is written on every way to an instruction, a bit a word.
        let mut written_before = vec![u16::MAX; count];
        let mut written = 0u16;
        for (at, &Instruction { code, jump_true, jump_false, k }) in self.instructions.iter().enumerate() {
            let refuse = |why: &str| Err(format!("instruction {at} (code {code:#x}): {why}"));
            written &= written_before[at];
            if !is_known(code) {
                return refuse("there is no such instruction");
            }
            match code {
                0x02 | 0x03 | 0x60 | 0x61 if k as usize >= MEMORY_WORDS => return refuse("no such memory"),
                0x02 | 0x03 => written |= 1 << k,
                0x60 | 0x61 if written & (1 << k) == 0 => {
                    return refuse("memory is read before it is written");
                }
                0x34 | 0x94 if k == 0 => return refuse("division by zero"),
                0x64 | 0x74 if k >= 32 => return refuse("shift by more than 31"),
                0x20 | 0x28 | 0x30 if k >= ANCILLARY && ancillary(k).is_none() => {
                    return refuse("there is no such ancillary data");
                }
                _ => {}
            }
            if code & 7 == JMP {
                let jumps = if code == JMP { [k; 2] } else { [jump_true.into(), jump_false.into()] };
                for jump in jumps {
                    let to = usize::try_from(jump).ok().and_then(|j| (at + 1).checked_add(j));
                    let Some(to) = to.filter(|&to| to < count) else { return refuse("jump beyond the end") };
                    written_before[to] &= written;
                }
                written = u16::MAX;
            }
        }
        match self.instructions.last() {
            Some(Instruction { code: 0x06 | 0x16, .. }) => Ok(()),
            _ => Err("the last instruction does not return".into()),
        }
    }

    /// What the program returns for a packet; `None` when it asks for what is not known.
    pub fn run(&self, bytes: &[u8], packet: &Packet) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY_WORDS];
        let mut at = 0;
        // Jumps go forward only.
        while let Some(&Instruction { code, jump_true, jump_false, k }) = self.instructions.get(at) {
            at += 1;
            let operand = if code & X != 0 { x } else { k };
            match code & 7 {
                LD => match code & 0xe0 {
                    IMM => a = k,
                    MEM => a = memory[k as usize % MEMORY_WORDS],
                    LEN => a = packet.length,
                    ABS if k >= ANCILLARY => a = special(ancillary(k)?, a, x, packet)?,
                    mode => {
                        let offset = if mode == IND { k.wrapping_add(x) } else { k };
                        match load(bytes, offset, code & 0x18) {
                            Load::Value(value) => a = value,
                            Load::Beyond => return Some(0),
                            Load::Unknown => return None,
                        }
                    }
                },
                LDX => match code & 0xe0 {
                    IMM => x = k,
                    MEM => x = memory[k as usize % MEMORY_WORDS],
                    LEN => x = packet.length,
                    MSH => match load(bytes, k, BYTE) {
                        Load::Value(value) => x = (value & 0xf) << 2,
                        Load::Beyond => return Some(0),
                        Load::Unknown => return None,
                    },
                    _ => return Some(0),
                },
                ST => memory[k as usize % MEMORY_WORDS] = a,
                STX => memory[k as usize % MEMORY_WORDS] = x,
                ALU => match arithmetic(code & 0xf0, a, operand) {
                    Some(result) => a = result,
                    // Division by zero.
                    None => return Some(0),
                },
                JMP if code == JMP => at += k as usize,
                JMP => {
                    let holds = match code & 0xf0 {
                        0x10 => a == operand,
                        0x20 => a > operand,
                        0x30 => a >= operand,
                        _ => a & operand != 0,
                    };
                    at += usize::from(if holds { jump_true } else { jump_false });
                }
                RET => return Some(if code & 0x18 == 0x10 { a } else { k }),
                MISC if code & 0x80 == 0 => x = a,
                _ => a = x,
            }
        }
        Some(0)
    }
}

fn instruction(text: &str) -> Option<Instruction> {
    let mut words = text.split_whitespace();
    let code = words.next()?.parse().ok()?;
    let jump_true = words.next()?.parse().ok()?;
    let jump_false = words.next()?.parse().ok()?;
    let k = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Instruction { code, jump_true, jump_false, k })
}

fn is_known(code: u16) -> bool {
    match code & 7 {
        LD => matches!(code, 0x00 | 0x60 | 0x80 | 0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50),
        LDX => matches!(code, 0x01 | 0x61 | 0x81 | 0xb1),
        ST => code == 0x02,
        STX => code == 0x03,
        ALU => code < 0x100 && (code & 0xf0 <= 0xa0) && (code & 0xf0 != 0x80 || code == 0x84),
        JMP => code < 0x100 && (code & 0xf0 <= 0x40) && (code & 0xf0 != 0 || code == 0x05),
        RET => matches!(code, 0x06 | 0x16),
        _ => matches!(code, 0x07 | 0x87),
    }
}

enum Load {
    Value(u32),
    Beyond,
    Unknown,
}

fn load(bytes: &[u8], offset: u32, size: u16) -> Load {
    let offset = match offset {
        0..0x8000_0000 => offset,
        // The kernel would read what lies before the packet, or the frame.
        LINK..NETWORK => return Load::Unknown,
        NETWORK.. => offset - NETWORK,
        _ => return Load::Beyond,
    };
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    let value = match size {
        BYTE => rest.first().map(|&b| b.into()),
        HALF => rest.first_chunk().map(|two| u16::from_be_bytes(*two).into()),
        _ => rest.first_chunk().map(|four| u32::from_be_bytes(*four)),
    };
    value.map_or(Load::Beyond, Load::Value)
}

/// `None`: division by zero.
fn arithmetic(operator: u16, a: u32, b: u32) -> Option<u32> {
    Some(match operator {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(b),
        0x70 => a.wrapping_shr(b),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b)?,
        _ => a ^ b,
    })
}

/// What lies at an offset that is no offset.
#[derive(Clone, Copy)]
enum Ancillary {
    Protocol,
    PacketType,
    Mark,
    XorX,
    /// Known to the kernel alone.
    Kernel,
}

fn ancillary(offset: u32) -> Option<Ancillary> {
    match offset.wrapping_sub(ANCILLARY) {
        0 => Some(Ancillary::Protocol),
        4 => Some(Ancillary::PacketType),
        20 => Some(Ancillary::Mark),
        40 => Some(Ancillary::XorX),
        8 | 12 | 16 | 24 | 28 | 32 | 36 | 44 | 48 | 52 | 56 | 60 => Some(Ancillary::Kernel),
        _ => None,
    }
}

fn special(which: Ancillary, a: u32, x: u32, packet: &Packet) -> Option<u32> {
    match which {
        Ancillary::Protocol => Some(if packet.is_v6 { 0x86dd } else { 0x0800 }),
        Ancillary::PacketType => Some(packet.packet_type.into()),
        Ancillary::Mark => Some(packet.mark),
        Ancillary::XorX => Some(a ^ x),
        Ancillary::Kernel => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp;

    #[track_caller]
    fn run(text: &str) -> Option<u32> {
        let wire = udp(b"text");
        let packet = Packet { mark: 7, ..Packet::from_ip_bytes(&wire).unwrap() };
        Program::parse(text).unwrap().run(&wire, &packet)
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = Program::parse(text).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    /// The program that returns A.
    fn returning(instructions: &str) -> String {
        let count = instructions.split(',').count() + 1;
        format!("{count},{instructions},22 0 0 0")
    }

    #[test]
    fn loads_read_the_packet_from_its_ip_header() {
        assert_eq!(run(&returning("48 0 0 9")), Some(17));
        assert_eq!(run(&returning("40 0 0 2")), Some(32));
        assert_eq!(run(&returning("32 0 0 16")), Some(0x0a00_0002));
        assert_eq!(run(&returning("128 0 0 0")), Some(32));
        // X = 4 × (header length), then the destination port.
        assert_eq!(run(&returning("177 0 0 0,72 0 0 2")), Some(53));
        // The network header by its other name.
        assert_eq!(run(&returning("48 0 0 4293918729")), Some(17));
    }

    #[test]
    fn a_read_beyond_the_packet_returns_0() {
        assert_eq!(run("2,32 0 0 28,6 0 0 1"), Some(1));
        assert_eq!(run("2,32 0 0 29,6 0 0 1"), Some(0));
        assert_eq!(run("3,1 0 0 4294967295,80 0 0 1,6 0 0 1"), Some(1));
        assert_eq!(run("3,1 0 0 2147483647,80 0 0 1,6 0 0 1"), Some(0));
        assert_eq!(run("2,32 0 0 2147483648,6 0 0 1"), Some(0));
    }

    #[test]
    fn arithmetic_is_that_of_32_bits() {
        assert_eq!(run(&returning("0 0 0 4294967295,4 0 0 2")), Some(1));
        assert_eq!(run(&returning("0 0 0 1,132 0 0 0")), Some(u32::MAX));
        assert_eq!(run(&returning("0 0 0 7,1 0 0 33,108 0 0 0")), Some(14));
        assert_eq!(run(&returning("0 0 0 7,1 0 0 0,60 0 0 0")), Some(0));
        assert_eq!(run(&returning("0 0 0 7,1 0 0 3,156 0 0 0")), Some(1));
        assert_eq!(run(&returning("0 0 0 5,2 0 0 15,0 0 0 0,97 0 0 15,135 0 0 0")), Some(5));
    }

    #[test]
    fn jumps_go_where_they_say() {
        // jeq, jgt, jge, jset over constants; ja.
        assert_eq!(run("4,0 0 0 5,21 0 1 5,6 0 0 1,6 0 0 0"), Some(1));
        assert_eq!(run("4,0 0 0 5,37 0 1 5,6 0 0 1,6 0 0 0"), Some(0));
        assert_eq!(run("4,0 0 0 5,53 0 1 5,6 0 0 1,6 0 0 0"), Some(1));
        assert_eq!(run("4,0 0 0 5,69 0 1 8,6 0 0 1,6 0 0 0"), Some(0));
        assert_eq!(run("3,5 0 0 1,6 0 0 1,6 0 0 2"), Some(2));
    }

    #[test]
    fn what_is_no_part_of_a_packet_is_not_known() {
        assert_eq!(run(&returning("32 0 0 4294963220")), Some(7), "the mark");
        assert_eq!(run(&returning("32 0 0 4294963200")), Some(0x800), "the protocol");
        assert_eq!(run(&returning("32 0 0 4294963236")), None, "the processor");
        assert_eq!(run(&returning("48 0 0 4292870144")), None, "the frame");
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        refused("0,", "1 to 64");
        refused("65,6 0 0 0", "1 to 64");
        refused("2,6 0 0 0", "does not have 2");
        refused("1,6 0 0", "is none");
        refused("1,6 0 0 0,6 0 0 0", "does not have 1");
        refused("1,0 0 0 0", "does not return");
        refused("1,14 0 0 0", "no such instruction");
        refused("2,5 0 0 1,6 0 0 0", "jump beyond");
        refused("2,5 0 0 4294967295,6 0 0 0", "jump beyond");
        refused("2,21 0 1 0,6 0 0 0", "jump beyond");
        refused("2,52 0 0 0,6 0 0 0", "division by zero");
        refused("2,100 0 0 32,6 0 0 0", "shift");
        refused("2,2 0 0 16,6 0 0 0", "no such memory");
        refused("2,96 0 0 3,6 0 0 0", "before it is written");
        refused("2,32 0 0 4294963201,6 0 0 0", "ancillary");
        // Written on one way only.
        refused("4,21 0 1 0,2 0 0 3,96 0 0 3,6 0 0 0", "before it is written");
    }
}
