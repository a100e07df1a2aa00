//! Images written by the first versions of the format are read for ever, and answer as they did.
//!
//! Never write them anew: a format that reads them differently needs a new number. That of format 1 holds 600
//! generated rules in chains over all tables: roots, nodes, lean and fat leaves, recoded dimensions, interface
//! ranks, programs, calls; that of format 2 rules that test facts (processor, realm, device groups, owner, SPI,
//! DCCP type, MSS) and three IP sets, in chains.

use hipac_classifier::evaluate::NoHost;
use hipac_classifier::forest::lookup::Machine;
use hipac_classifier::{CtState, Decision, Fact, Image, InterfaceName, L4, Packet};

const FORMAT_1: &[u8] = include_bytes!("data/format-1.image");
const FORMAT_2: &[u8] = include_bytes!("data/format-2.image");

/// A fixed sequence of numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn packet_of_format_1(numbers: &mut Numbers) -> Packet {
    let interface = |name| InterfaceName::new(name).unwrap_or(InterfaceName::NONE);
    let net = |numbers: &mut Numbers| {
        let prefix = numbers.pick(&[0x0a00_0000u128, 0xc0a8_0000, 0xac10_0000, 0xc633_6400, 0]);
        prefix + u128::from(numbers.below(1 << 16))
    };
    Packet {
        source: net(numbers),
        destination: net(numbers),
        protocol: numbers.pick(&[1, 6, 6, 17, 47]),
        l4: numbers.pick(&[L4::Whole, L4::Whole, L4::Whole, L4::Fragment, L4::Under8]),
        source_port: numbers.below(1 << 16) as u16,
        destination_port: numbers.pick(&[22, 53, 80, 443, 8080, 0x0800, 60_000]),
        tcp_flags: numbers.below(64) as u8,
        in_interface: interface(numbers.pick(&["", "eth0", "eth1", "ppp0", "lo"])),
        out_interface: interface(numbers.pick(&["", "eth0", "eth1", "ppp0", "lo"])),
        ct_state: numbers.pick(&CtState::ALL),
        mark: numbers.below(4) as u32,
        ..Packet::default()
    }
}

fn packet_of_format_2(numbers: &mut Numbers) -> Packet {
    let mut packet = Packet {
        source: numbers.pick(&[0x0a00_0001, 0x0a00_0009, 0x0a01_0203, 0xc0a8_0107, 0x0a07_0000]),
        destination: numbers.pick(&[0xc0a8_0001, 0x0a01_0001, 0xc0a8_0709, 0xc0a8_3c01]),
        protocol: numbers.pick(&[1, 6, 6, 6, 17, 33, 50]),
        destination_port: numbers.pick(&[22, 53, 80, 85, 443, 1007, 1060]),
        tcp_flags: numbers.pick(&[2, 16, 18, 4]),
        in_interface: InterfaceName::new(numbers.pick(&["eth0", "ppp0"])).unwrap_or(InterfaceName::NONE),
        mark: numbers.below(2) as u32,
        ..Packet::default()
    };
    let facts: [(Fact, &[u32]); 10] = [
        (Fact::Cpu, &[0, 1]),
        (Fact::Realm, &[0, 7]),
        (Fact::InGroup, &[0, 5, 0x15]),
        (Fact::OutGroup, &[0, 9]),
        (Fact::Uid, &[999, 1000, 2000, 2001]),
        (Fact::Gid, &[5, 6]),
        (Fact::Socket, &[0, 1]),
        (Fact::Spi, &[99, 100, 200, 201]),
        (Fact::DccpType, &[0, 1, 7]),
        (Fact::Mss, &[1399, 1400, 1500, 1501, 0x1_0000]),
    ];
    for (fact, values) in facts {
        packet.facts.set(fact, numbers.pick(values));
    }
    packet
}

/// Every decision of every entry point for a thousand packets, folded into one number, and how many
/// different decisions there were.
fn digest(image: &Image<&[u8]>, packet: fn(&mut Numbers) -> Packet) -> (u64, usize) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut seen = std::collections::BTreeSet::new();
    let mut numbers = Numbers(1);
    for _ in 0..1000 {
        let packet = packet(&mut numbers);
        for (entry, record, _) in image.entries() {
            if record.called {
                continue;
            }
            let word = match image.evaluate(entry, &mut packet.clone(), &mut NoHost) {
                Ok(Decision::Rule { verdict, rule }) => {
                    1 << 40 | u64::from(verdict) << 32 | u64::from(rule.0)
                }
                Ok(Decision::Default { verdict }) => 2 << 40 | u64::from(verdict),
                Ok(Decision::Malformed { rule }) => 3 << 40 | u64::from(rule.0),
                Err(error) => panic!("{error}"),
            };
            seen.insert((entry.0, word));
            hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    (hash, seen.len())
}

#[test]
fn images_of_old_formats_answer_as_they_always_did() {
    let packets: [fn(&mut Numbers) -> Packet; 2] = [packet_of_format_1, packet_of_format_2];
    let wanted = [8_739_067_584_227_470_350, 12_226_995_325_051_954_290];
    for (version, (bytes, (packet, wanted))) in
        (1..).zip([FORMAT_1, FORMAT_2].into_iter().zip(packets.into_iter().zip(wanted)))
    {
        let image = Image::open(bytes).expect("it is read");
        assert_eq!(image.version(), version);
        image.audit().expect("and is sound");
        // No vectors read its leaves, whoever asks for them.
        for machine in Machine::available() {
            assert_eq!(image.clone().with_machine(machine).machine(), Machine::SCALAR);
        }
        let (hash, different) = digest(&image, packet);
        assert_eq!(hash, wanted, "format {version}");
        assert!(different > 10, "format {version}: {different} decisions");
    }
}

fn with_checksums(bytes: &mut [u8]) {
    let all = crc32fast::hash(&bytes[64..]).to_le_bytes();
    bytes[24..28].copy_from_slice(&all);
    let head = crc32fast::hash(&bytes[..28]).to_le_bytes();
    bytes[28..32].copy_from_slice(&head);
}

/// Version 3 has leaves of another form, which vector kernels count on.
#[test]
fn leaves_of_an_older_version_are_refused_in_a_newer_one() {
    let mut bytes = FORMAT_2.to_vec();
    bytes[8] = 3;
    with_checksums(&mut bytes);
    let image = Image::open(&bytes[..]).expect("the header is whole");
    let error = image.audit().expect_err("its leaves are old").to_string();
    assert!(error.contains("the form of another version"), "{error}");
    digest(&image, packet_of_format_2); // means nothing, and ends
}

/// Dimension 55 came with version 3: an image that says it is older cannot have it.
#[test]
fn a_dimension_that_a_version_does_not_have_is_refused() {
    let mut bytes = FORMAT_2.to_vec();
    let slots = u64::from_le_bytes(bytes[64..72].try_into().expect("8 bytes")) as usize;
    // A dimension of four bytes for one of four bytes.
    bytes[slots] = 55;
    with_checksums(&mut bytes);
    let audited = Image::open(&bytes[..]).expect("the header is whole").audit().map(|_| ());
    let error = audited.expect_err("version 2 has no such dimension").to_string();
    assert!(error.contains("version 2 has no dimension for ah-spi"), "{error}");
}
