//! DPDK's `rte_acl`, as far as a five-tuple needs it.
//!
//! ```text
//!   eal_init once ─▶ Acl::build(filters) ─▶ acl.classify(headers, out)
//! ```
//!
//! Declarations follow `rte_acl.h` and `rte_malloc.h` of DPDK 22.11, on a 64-bit little-endian
//! machine. A rule's priority falls with its place; its data is its number from 1, and 0 means
//! that none matches.
#![allow(unsafe_code)] // calls of C; each block says why it holds

use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;

use hipac_bench_data::{Filter, TracePacket};

/// Fields of a filter.
const FIELDS: usize = 5;

/// Greatest priority of a rule.
const PRIORITY_MAX: i32 = (1 << 29) - 1;

/// Bytes of heap given to DPDK: the largest structure measured takes a gigabyte.
const HEAP_MEGABYTES: &str = "2560";

const MASK: u8 = 0;
const RANGE: u8 = 1;
const BITMASK: u8 = 2;

/// A header as rte_acl reads it: protocol, then addresses and ports in network byte order. It
/// wants a first field of one byte and all others in groups of four; reads stay inside.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(16))]
pub(crate) struct Header([u8; 16]);

impl From<&TracePacket> for Header {
    fn from(p: &TracePacket) -> Header {
        let mut bytes = [0; 16];
        bytes[0] = p.protocol;
        bytes[1..5].copy_from_slice(&p.source.to_be_bytes());
        bytes[5..9].copy_from_slice(&p.destination.to_be_bytes());
        bytes[9..11].copy_from_slice(&p.source_port.to_be_bytes());
        bytes[11..13].copy_from_slice(&p.destination_port.to_be_bytes());
        Header(bytes)
    }
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct FieldDef {
    kind: u8,
    size: u8,
    field_index: u8,
    input_index: u8,
    offset: u32,
}

#[repr(C)]
struct Config {
    categories: u32,
    fields: u32,
    defs: [FieldDef; 64],
    size_max: usize,
}

/// `union`s of 8 bytes in C: a smaller number is their low bytes.
#[derive(Clone, Copy)]
#[repr(C)]
struct Field {
    value: u64,
    mask_range: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Rule {
    category_mask: u32,
    priority: i32,
    userdata: u32,
    fields: [Field; FIELDS],
}

#[repr(C)]
struct Param {
    name: *const c_char,
    socket: c_int,
    rule_size: u32,
    rules_max: u32,
}

#[derive(Default)]
#[repr(C)]
struct HeapStats {
    total: usize,
    free: usize,
    greatest_free: usize,
    free_count: u32,
    alloc_count: u32,
    allocated: usize,
}

const _: () = assert!(size_of::<Rule>() == 16 + 16 * FIELDS && size_of::<Config>() == 8 + 64 * 8 + 8);
const _: () = assert!(cfg!(target_endian = "little") && size_of::<usize>() == 8);

#[repr(C)]
struct Ctx {
    opaque: [u8; 0],
}

unsafe extern "C" {
    fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn rte_acl_create(param: *const Param) -> *mut Ctx;
    fn rte_acl_free(ctx: *mut Ctx);
    fn rte_acl_add_rules(ctx: *mut Ctx, rules: *const Rule, count: u32) -> c_int;
    fn rte_acl_build(ctx: *mut Ctx, config: *const Config) -> c_int;
    fn rte_acl_set_ctx_classify(ctx: *mut Ctx, method: c_int) -> c_int;
    fn rte_acl_classify(
        ctx: *const Ctx,
        data: *const *const u8,
        results: *mut u32,
        count: u32,
        categories: u32,
    ) -> c_int;
    fn rte_malloc_get_socket_stats(socket: c_int, stats: *mut HeapStats) -> c_int;
}

/// How rte_acl searches: `enum rte_acl_classify_alg`, without those of other processors.
pub(crate) const METHODS: [(&str, c_int); 5] =
    [("scalar", 1), ("SSE", 2), ("AVX2", 3), ("AVX512X16", 6), ("AVX512X32", 7)];

/// DPDK's environment, started: nothing else of it works before. One thread's alone.
pub(crate) struct Eal(PhantomData<*const ()>);

impl Eal {
    /// Starts it, without huge pages, devices or files. Once a process.
    pub(crate) fn start() -> Result<Eal, String> {
        let args = [
            "peers",
            "--no-huge",
            "--no-pci",
            // Memory without huge pages is "legacy" to DPDK, which `--in-memory` excludes; nothing
            // is shared all the same, see `--no-shconf`.
            "--no-telemetry",
            "--no-shconf",
            "--iova-mode=va",
            "--force-max-simd-bitwidth=512",
            "--log-level=error",
            "-m",
            HEAP_MEGABYTES,
            "-l",
            "0",
        ];
        // DPDK keeps pointers to its arguments: they are never freed.
        let mut args: Vec<*mut c_char> =
            args.iter().map(|arg| CString::new(*arg).unwrap_or_default().into_raw()).collect();
        let count = args.len() as c_int;
        args.push(std::ptr::null_mut());
        let args = args.leak();
        // SAFETY: `args` are `count` NUL-terminated strings and a null pointer, like those of
        // `main`, writable and alive until the process ends.
        match unsafe { rte_eal_init(count, args.as_mut_ptr()) } {
            -1 => Err("DPDK's environment does not start".to_owned()),
            _ => Ok(Eal(PhantomData)),
        }
    }

    /// Bytes allocated from its heap.
    pub(crate) fn allocated(&self) -> usize {
        let mut stats = HeapStats::default();
        // SAFETY: the environment runs (`self`); `stats` is a whole `rte_malloc_socket_stats`.
        unsafe { rte_malloc_get_socket_stats(0, &mut stats) };
        stats.allocated
    }
}

/// A set of filters, built.
pub(crate) struct Acl<'e> {
    ctx: NonNull<Ctx>,
    eal: PhantomData<&'e Eal>,
}

impl<'e> Acl<'e> {
    /// Builds. The best that is found within DPDK's heap, or why there is none.
    pub(crate) fn build(_: &'e Eal, name: &str, filters: &[Filter]) -> Result<Acl<'e>, String> {
        let count = u32::try_from(filters.len()).map_err(|_| "too many filters")?;
        // Names of contexts have 31 letters.
        let name: String = name.chars().take(31).collect();
        let name = CString::new(name).map_err(|_| "a NUL in the name")?;
        let param =
            Param { name: name.as_ptr(), socket: 0, rule_size: size_of::<Rule>() as u32, rules_max: count };
        // SAFETY: the environment runs; `param` and the name in it live through the call, which
        // copies both.
        let ctx = unsafe { rte_acl_create(&param) };
        let ctx = NonNull::new(ctx).ok_or("no room for the rules")?;
        let acl = Acl { ctx, eal: PhantomData };
        let rules: Vec<Rule> = filters.iter().zip(1..).map(|(filter, number)| rule(filter, number)).collect();
        // SAFETY: `ctx` is live until `acl` is dropped; `rules` are `count` rules of the size
        // that it was created for, and are copied.
        let added = unsafe { rte_acl_add_rules(acl.ctx.as_ptr(), rules.as_ptr(), count) };
        if added != 0 {
            return Err(format!("rules are refused ({added})"));
        }
        let config = config();
        // SAFETY: as above; `config` describes the five fields that every rule has.
        match unsafe { rte_acl_build(acl.ctx.as_ptr(), &config) } {
            0 => Ok(acl),
            error => Err(format!("it does not build ({error})")),
        }
    }

    /// Searches by this method from now on; false where the processor cannot.
    pub(crate) fn use_method(&mut self, method: c_int) -> bool {
        // SAFETY: `ctx` is live, and nothing searches in it now: `self` is borrowed alone.
        unsafe { rte_acl_set_ctx_classify(self.ctx.as_ptr(), method) == 0 }
    }

    /// The number of the first filter that holds each header, from 1; 0 for none.
    pub(crate) fn classify(&self, headers: &[&Header], out: &mut [u32]) {
        assert_eq!(headers.len(), out.len(), "one answer a header");
        let count = u32::try_from(headers.len()).expect("batches are short");
        // SAFETY: `ctx` is live and built. A reference is a non-null pointer, so `headers` is an
        // array of `count` pointers to 16 readable bytes each, and the search reads the 13 bytes
        // that `config` names, in groups of four from offsets 0, 1, 5 and 9: 13 at most. `out`
        // has room for `count` results of one category.
        let done = unsafe {
            rte_acl_classify(self.ctx.as_ptr(), headers.as_ptr().cast(), out.as_mut_ptr(), count, 1)
        };
        assert_eq!(done, 0, "a built context classifies");
    }
}

impl Drop for Acl<'_> {
    fn drop(&mut self) {
        // SAFETY: `ctx` came from `rte_acl_create` and is freed here alone.
        unsafe { rte_acl_free(self.ctx.as_ptr()) }
    }
}

fn config() -> Config {
    let field = |kind, size, field_index, input_index, offset| FieldDef {
        kind,
        size,
        field_index,
        input_index,
        offset,
    };
    let mut defs = [FieldDef::default(); 64];
    defs[..FIELDS].copy_from_slice(&[
        field(BITMASK, 1, 0, 0, 0),
        field(MASK, 4, 1, 1, 1),
        field(MASK, 4, 2, 2, 5),
        field(RANGE, 2, 3, 3, 9),
        field(RANGE, 2, 4, 3, 11),
    ]);
    Config { categories: 1, fields: FIELDS as u32, defs, size_max: 0 }
}

fn rule(filter: &Filter, number: u32) -> Rule {
    let field = |value: u32, mask_range: u32| Field { value: value.into(), mask_range: mask_range.into() };
    let (sport, dport) = (filter.source_ports, filter.destination_ports);
    Rule {
        category_mask: 1,
        priority: PRIORITY_MAX - number as i32,
        userdata: number,
        fields: [
            field(filter.protocol.unwrap_or(0).into(), if filter.protocol.is_some() { 0xff } else { 0 }),
            field(filter.source.low(), filter.source.len().into()),
            field(filter.destination.low(), filter.destination.len().into()),
            field(sport.low().into(), sport.high().into()),
            field(dport.low().into(), dport.high().into()),
        ],
    }
}
