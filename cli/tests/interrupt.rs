//! Ctrl-C: exit code 130, a word about how far it got, and nothing left behind.
#![cfg(unix)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn an_interrupted_command_says_so_and_leaves_no_file() {
    let hipac = env!("CARGO_BIN_EXE_hipac");
    let folder = std::env::temp_dir().join(format!("hipac-interrupt-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let rules = folder.join("rules");
    let made =
        Command::new(hipac).args(["generate", "firewall", "--rules", "60000"]).output().expect("rules");
    std::fs::write(&rules, made.stdout).expect("a file");
    for command in [&["lint"][..], &["verify", "--certificate", "cert"][..]] {
        let mut child = Command::new(hipac)
            .args(command)
            .arg(&rules)
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(300));
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let begin = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            assert!(begin.elapsed() < Duration::from_secs(10), "{command:?} does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().expect("its output");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{command:?}: {said}");
        assert!(said.contains("hipac: interrupted"), "{command:?}: {said}");
        // What was proved before the certificate was begun may have been said.
        assert!(output.stdout.is_empty() || command[0] == "verify", "{command:?}");
    }
    let left: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").filter_map(|e| Some(e.ok()?.file_name())).collect();
    assert_eq!(left, ["rules"]);
    std::fs::remove_dir_all(&folder).expect("it goes");
}
