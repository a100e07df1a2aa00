//! An image written by the first version of the format is read for ever, and answers as it did.
//!
//! The image holds 600 generated rules in chains over all tables: roots, nodes, lean and fat
//! leaves, recoded dimensions, interface ranks, programs, calls. Never write it anew: a format
//! that reads it differently needs a new number.

use hipac_classifier::evaluate::NoHost;
use hipac_classifier::forest::lookup::Machine;
use hipac_classifier::{CtState, Decision, Image, InterfaceName, L4, Packet};

const IMAGE: &[u8] = include_bytes!("data/format-1.image");

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

fn packet(numbers: &mut Numbers) -> Packet {
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

/// Every decision of every entry point for a thousand packets, folded into one number.
fn digest(image: &Image<&[u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
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
            hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[test]
fn an_image_of_format_1_answers_as_it_always_did() {
    let image = Image::open(IMAGE).expect("format 1 is read");
    image.audit().expect("and is sound");
    for machine in Machine::available() {
        let image = image.clone().with_machine(machine);
        assert_eq!(digest(&image), 8_739_067_584_227_470_350, "on {}", machine.name());
    }
}
