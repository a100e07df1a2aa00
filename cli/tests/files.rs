//! Files: images that are damaged, replaced or not; traces; output that nobody reads.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::{Folder, example, hipac, hipac_reading};

/// The image of the example gateway.
fn gateway_image(folder: &Folder) -> (String, Vec<u8>) {
    let path = folder.path("gateway.himg");
    hipac(&["compile", &example("gateway.rules"), "-o", &path]).exits(0);
    let bytes = std::fs::read(&path).expect("the image");
    (path, bytes)
}

#[test]
fn an_image_that_is_cut_is_refused() {
    let folder = Folder::new();
    let (_, bytes) = gateway_image(&folder);
    for length in [8, 9, 63, 64, 200, bytes.len() / 2, bytes.len() - 1] {
        let cut = folder.write("cut.himg", &bytes[..length]);
        hipac(&["classify", &cut, "--packet", ""]).exits(2).complains(&["cut.himg", "bytes"]);
    }
    // Without its first bytes it is a ruleset, and not a good one.
    let cut = folder.write("cut.himg", &bytes[..7]);
    hipac(&["check", &cut]).exits(1);
}

#[test]
fn an_image_with_a_byte_changed_anywhere_is_refused() {
    let folder = Folder::new();
    let (_, bytes) = gateway_image(&folder);
    // Every byte of the header, and a sample of the others that meets every section.
    let places = (8..64).chain((64..bytes.len()).step_by(97));
    for at in places {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let path = folder.write("damaged.himg", damaged);
        let run = hipac(&["classify", &path, "--packet", ""]);
        assert_eq!(run.code, Some(2), "byte {at}: {}{}", run.stdout, run.stderr);
        run.complains(&["damaged.himg"]);
    }
}

#[test]
fn an_image_of_another_version_says_what_to_do() {
    let folder = Folder::new();
    let (_, mut bytes) = gateway_image(&folder);
    bytes[8] = 99;
    let path = folder.write("new.himg", bytes);
    hipac(&["verify", &example("gateway.rules"), &path]).exits(2).complains(&["version 99", "compile"]);
}

#[test]
fn an_image_stays_as_it_was_when_a_compilation_fails() {
    let folder = Folder::new();
    let (path, bytes) = gateway_image(&folder);
    hipac(&["compile", &example("faulty.rules"), "-o", &path]).exits(2);
    hipac(&["compile", &example("gateway.rules"), "-o", &path, "--memory", "1K"]).exits(2);
    assert_eq!(std::fs::read(&path).expect("the image"), bytes);
    assert_eq!(folder.names(), ["gateway.himg"], "nothing is left lying about");
}

#[test]
fn an_image_is_replaced_and_only_the_new_one_is_left() {
    let folder = Folder::new();
    let (path, old) = gateway_image(&folder);
    hipac(&["compile", &example("gateway6.rules"), "-o", &path]).exits(0);
    assert_ne!(std::fs::read(&path).expect("the image"), old);
    assert_eq!(folder.names(), ["gateway.himg"]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_a_pipe_a_pipe() {
    use std::os::unix::fs::{FileTypeExt, symlink};

    let folder = Folder::new();
    let (file, bytes) = gateway_image(&folder);
    let (first, second) = (folder.path("first.himg"), folder.path("second.himg"));
    symlink("gateway.himg", &first).expect("a link");
    symlink(&first, &second).expect("a link to a link");
    folder.write("gateway.himg", "old");
    hipac(&["compile", &example("gateway.rules"), "-o", &second]).exits(0);
    assert_eq!(std::fs::read(&file).expect("the file"), bytes);
    for link in [&first, &second] {
        assert!(std::fs::symlink_metadata(link).expect("the link").is_symlink(), "{link} is replaced");
    }

    // As root, a device would be replaced as well.
    let pipe = folder.path("pipe");
    if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|made| made.success()) {
        eprintln!("skipped: no mkfifo");
        return;
    }
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).expect("what is written")
    });
    hipac(&["compile", &example("gateway.rules"), "-o", &pipe]).exits(0);
    assert!(
        std::fs::symlink_metadata(&pipe).expect("the pipe").file_type().is_fifo(),
        "the pipe is replaced"
    );
    assert_eq!(reader.join().expect("read"), bytes);
}

#[test]
fn a_target_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    let nowhere = folder.path("no/such/folder/gateway.himg");
    hipac(&["compile", &example("gateway.rules"), "-o", &nowhere]).exits(2).complains(&[&nowhere]);
    // A folder is not replaced by an image.
    let taken = folder.path("");
    hipac(&["compile", &example("gateway.rules"), "-o", &taken]).exits(2);
    assert!(folder.names().is_empty());
}

#[test]
fn the_memory_that_is_named_is_enough() {
    let gateway = example("gateway.rules");
    let run = hipac(&["compile", &gateway, "--memory", "1K"]).exits(2).complains(&["--memory"]);
    let wanted = run.stderr.split("--memory ").nth(1).and_then(|rest| rest.split(' ').next());
    hipac(&["compile", &gateway, "--memory", wanted.expect("a size")]).exits(0);
}

#[test]
fn the_same_rules_give_the_same_image() {
    let folder = Folder::new();
    let (_, one) = gateway_image(&folder);
    let (_, other) = gateway_image(&folder);
    assert!(one == other);
}

#[test]
fn output_that_nobody_reads_to_its_end_is_no_error() {
    let folder = Folder::new();
    let rules: String =
        (0..100_000).map(|i| format!("-A INPUT -s 10.0.{}.{}\n", i >> 8 & 255, i & 255)).collect();
    let path = folder.write("long.rules", format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_hipac"))
        .args(["fmt", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hipac starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr, "");
    assert!(child.wait().expect("hipac ends").success());
}

#[test]
fn a_standard_error_that_is_gone_is_no_reason_to_stop() {
    let folder = Folder::new();
    let path = folder.write("faulty.rules", format!("*filter\n{}COMMIT\n", "-A INPUT --foo\n".repeat(2000)));
    let mut child = Command::new(env!("CARGO_BIN_EXE_hipac"))
        .args(["classify", &path, "--packet", ""])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hipac starts");
    drop(child.stderr.take());
    let output = child.wait_with_output().expect("hipac ends");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("by the policy of filter/FORWARD"));
}

#[test]
fn a_classbench_set_and_its_trace_are_read() {
    let folder = Folder::new();
    let filters = folder.write(
        "small.rules",
        "@10.0.0.0/8\t192.0.2.0/24\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0000/0x0000\n\
         @0.0.0.0/0\t192.0.2.0/24\t0 : 65535\t0 : 1023\t0x11/0xFF\t0x0000/0x0000\n",
    );
    // 10.1.2.3 to 192.0.2.1, twice, and what no filter takes.
    let trace = folder.write(
        "small.trace",
        "167838211\t3221225985\t40000\t80\t6\t0\n167838211\t3221225985\t40000\t53\t17\t1\n1\t1\t1\t1\t1\t1\n",
    );
    let run = hipac(&["classify", &filters, "--input-format", "classbench", "--trace", &trace]).exits(0);
    assert_eq!(
        run.stdout,
        "ACCEPT by filter/FORWARD rule 1 (line 1)\n\
         ACCEPT by filter/FORWARD rule 2 (line 2)\n\
         DROP by the policy of filter/FORWARD\n"
    );
    hipac(&["verify", &filters, "--input-format", "classbench", "--packets", "5000"]).exits(0);
}

#[test]
fn a_trace_with_a_wrong_cell_is_refused_with_its_line() {
    let gateway = example("gateway.rules");
    for (trace, words) in [
        ("src,dport\n1.2.3.4,1\n1.2.3.4,70000\n", ["<stdin>:3", "70000"]),
        ("src,nonsense\n1.2.3.4,1\n", ["<stdin>:2", "nonsense"]),
        ("src,src\n1.2.3.4,1.2.3.4\n", ["<stdin>:2", "already"]),
        ("src,dst\n1.2.3.4\n", ["<stdin>", "fields"]),
        ("1\t2\t3\t4\t5\t6\n1\t2\tx\t4\t5\t6\n", ["<stdin>: line 2", "column 5"]),
    ] {
        let run = hipac_reading(&["classify", &gateway, "--trace", "-"], trace.as_bytes());
        run.exits(2).complains(&words);
    }
}

#[test]
fn a_trace_without_packets_gives_no_lines() {
    let gateway = example("gateway.rules");
    for trace in ["", "src,dst\n"] {
        let run = hipac_reading(&["classify", &gateway, "--trace", "-"], trace.as_bytes()).exits(0);
        assert_eq!(run.stdout, "");
    }
}
